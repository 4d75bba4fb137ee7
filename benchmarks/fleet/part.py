"""One measurement in a fresh process: ``load``, ``ticks`` or ``growth`` of the project in a folder; JSON to stdout."""

from __future__ import annotations

import gc
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

_seconds: dict[str, float] = {}
_cpu: dict[str, float] = {}


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Wall and CPU seconds of the block, by this name."""
    began, cpu = time.perf_counter(), time.process_time()
    yield
    _seconds[what] = round(time.perf_counter() - began, 3)
    _cpu[what] = round(time.process_time() - cpu, 3)


def peak_mib() -> int:
    """The most memory that this process had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20 if sys.platform == "darwin" else 1 << 10)


def load(folder: Path) -> dict[str, Any]:
    """What a code server does: load the definitions, resolve every job, and tell the webserver what there is."""
    with timed("imports"):
        from dagster._core.remote_representation.external_data import RepositorySnap
        from dagster._serdes import serialize_value

        from dbplatform.declaration.loading import load_project
        from dbplatform.declaration.project import Project
        from dbplatform.orchestration.location import definitions_of
    imported = peak_mib()
    project = Project.at(folder)
    with timed("declarations"):
        broken = load_project(project).broken
    assert not broken, broken[0].error
    with timed("definitions"):
        definitions = definitions_of(project)
    with timed("repository"):
        repository = definitions.get_repository_def()
    with timed("jobs"):
        jobs = repository.get_all_jobs()
    with timed("snapshot"):
        snapshot = serialize_value(RepositorySnap.from_def(repository, defer_snapshots=True))
    graph = repository.asset_graph
    return {
        "assets": len(graph.executable_asset_keys),
        "checks": len(graph.asset_check_keys),
        "jobs": len(jobs),
        "schedules": len(repository.schedule_defs),
        "sensors": [sensor.name for sensor in repository.sensor_defs],
        "conditions": sum(graph.get(key).automation_condition is not None for key in graph.executable_asset_keys),
        "snapshot_bytes": len(snapshot),
        "imports_mib": imported,
        "peak_mib": peak_mib(),
    }


def one(folder: Path) -> dict[str, Any]:
    """What a run of one database loads: its own definitions."""
    with timed("imports"):
        from dbplatform.declaration.project import Project
        from dbplatform.operations.platform import Platform
        from dbplatform.orchestration.launch import find_job
    platform = Platform(Project.at(folder))
    with timed("definitions"):
        declared = platform.declared("c000")
        find_job(platform, declared, "c000")
    return {"peak_mib": peak_mib()}


def ticks(folder: Path) -> dict[str, Any]:
    """Two ticks of each sensor, as the daemon asks for them, with every schedule running and ticked once."""
    import dagster as dg

    from dbplatform.declaration.project import Project
    from dbplatform.operations.platform import Platform
    from dbplatform.orchestration.instance import prepare_instance
    from dbplatform.orchestration.location import definitions_of

    project = Project.at(folder)
    platform = Platform(project)
    prepare_instance(platform)
    repository = definitions_of(project).get_repository_def()
    repository.get_all_jobs()
    with timed("ledger's schema"):
        platform.ledger.engine.connect().close()
    with dg.DagsterInstance.get() as instance:
        _run_schedules(instance, repository)
        words = {}
        for sensor in sorted(repository.sensor_defs, key=lambda one: one.name):
            cursor = None
            for turn in ("first", "second", "third"):
                with timed(f"{sensor.name}, {turn}"):
                    context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
                    found = sensor.evaluate_tick(context)
                cursor = found.cursor
                words[f"{sensor.name}, {turn}"] = (found.skip_message or f"{len(found.run_requests or ())} runs")[:300]
        count = "select count(*) from ledger.watch where measured_at is not null"
        with psycopg.connect(os.environ["DBPLATFORM_LEDGER_URL"]) as connection:
            measured = connection.execute(count).fetchone()
    return {"words": words, "measured": measured and measured[0], "peak_mib": peak_mib()}


def _run_schedules(instance: Any, repository: Any) -> None:
    """Mark each schedule as running, with one tick in the past."""
    from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
    from dagster._core.scheduler.instigation import (
        InstigatorState,
        InstigatorStatus,
        InstigatorType,
        ScheduleInstigatorData,
        TickData,
        TickStatus,
    )

    of = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("dbplatform"), "__repository__")
    for schedule in repository.schedule_defs:
        origin = RemoteInstigatorOrigin(of, schedule.name)
        state = InstigatorState(
            origin, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING,
            ScheduleInstigatorData(schedule.cron_schedule, time.time()),
        )  # fmt: skip
        instance.add_instigator_state(state)
        instance.create_tick(
            TickData(
                instigator_origin_id=state.instigator_origin_id, instigator_name=schedule.name,
                instigator_type=InstigatorType.SCHEDULE, status=TickStatus.SKIPPED, timestamp=time.time(),
                selector_id=state.selector_id,
            )
        )  # fmt: skip


#: A row of each size that one database writes in a day and keeps for as long as it is kept.
_KEPT = """
    insert into ledger.metric_collection (database, at, counters, absent, unmeasured, missing, measured, worst)
    select 'kept', now() - g * interval '1 minute', counters, absent, unmeasured, missing, measured, worst
    from (select * from ledger.metric_collection where database = 'c000' order by id desc limit 1) c,
         generate_series(1, 2880) g;
    insert into ledger.metric_history (database, step_s, at, measured)
    select 'kept', s.step, now() - g * make_interval(secs => s.step),
           (select jsonb_object_agg(key, jsonb_build_array(value -> 'value', value -> 'value', value -> 'value', 5))
            from jsonb_each(c.measured))
    from (select * from ledger.metric_collection where database = 'c000' order by id desc limit 1) c,
         (values (300, 14 * 288), (3600, 400 * 24)) s (step, number), generate_series(1, s.number) g;
"""


def growth(folder: Path) -> dict[str, Any]:
    """What one database leaves in the ledger, and a run of its checks in Dagster's storage."""
    from dbplatform.declaration.project import Project
    from dbplatform.operations.platform import Platform

    platform = Platform(Project.at(folder))
    ledger, dagster = os.environ["DBPLATFORM_LEDGER_URL"], os.environ["DAGSTER_PLAIN_URL"]

    def sizes(url: str) -> dict[str, tuple[int, int]]:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("vacuum (full, analyze)")
            rows = connection.execute(
                "select relname, reltuples::bigint, pg_total_relation_size(oid) from pg_class "
                "where relkind = 'r' and relnamespace in ('ledger'::regnamespace::oid, 'public'::regnamespace)"
                if url == ledger
                else "select relname, reltuples::bigint, pg_total_relation_size(oid) from pg_class "
                "where relkind = 'r' and relnamespace = 'public'::regnamespace"
            ).fetchall()
        return {name: (max(tuples, 0), size) for name, tuples, size in rows}

    def grown(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> dict[str, list[int]]:
        return {
            name: [after[name][0] - before[name][0], after[name][1] - before[name][1]]
            for name in after
            if after[name] != before.get(name, (0, 0)) and name in before
        }

    def measured(url: str, work: Callable[[], Any]) -> dict[str, list[int]]:
        before = sizes(url)
        work()
        return grown(before, sizes(url))

    def command(*arguments: str) -> None:
        from dbplatform.cli.main import run

        code = run(["-C", str(folder), *arguments])
        assert code in (0, 1), (arguments, code)

    def history() -> None:
        with psycopg.connect(ledger, autocommit=True) as connection:
            connection.execute(_KEPT)

    platform.ledger.engine.connect().close()
    command("metrics", "c000", "--json")
    found = {"history of metrics": measured(ledger, history)}
    found["checks"] = measured(ledger, lambda: command("check", "c000", "--json"))
    command("run", "c000", "--job", "c000_quality", "--json")  # makes Dagster's tables, too
    before = sizes(ledger)
    found["run of the checks, in Dagster"] = measured(
        dagster, lambda: command("run", "c000", "--job", "c000_quality", "--json")
    )
    found["run of the checks"] = grown(before, sizes(ledger))
    return {"grown": found}


def main() -> None:
    which, folder = sys.argv[1], Path(sys.argv[2])
    gc.set_threshold(50_000, 20, 50)  # as the code location and the command line do
    printed = os.dup(1)
    os.dup2(2, 1)  # what the work itself prints is beside the result
    found = {"load": load, "one": one, "ticks": ticks, "growth": growth}[which](folder)
    os.write(printed, json.dumps({**found, "seconds": _seconds, "cpu": _cpu}).encode())


if __name__ == "__main__":
    main()
