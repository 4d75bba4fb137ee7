"""Many databases in one code location: work that grows with their number, and no faster. Counted, not timed."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import dagster as dg
import psycopg
import pytest
from dagster._core.definitions.assets.job import asset_job
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
)

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import automation, component, location, sensors
from dbplatform.orchestration.launch import find_job
from dbplatform.orchestration.location import definitions_of
from dbplatform_tests.conftest import created
from dbplatform_tests.fleet import Fleet, declared_fleet, until_asleep
from dbplatform_tests.typed import typist

_DECLARED = """\
type: dbplatform.ManagedDatabase
attributes:
  name: {name}
  connection: {{url_env: SHOP_URL}}
  partitioned_tables: [{tables}]
  quality: [{{table: item, checks: [{{not_null: id}}]}}, {{table: sale0, checks: [{{not_null: at}}]}}]
"""


def project(folder: Path, number: int, *, tables: int = 1) -> Project:
    """So many databases, each with so many partitioned tables."""
    partitioned = ", ".join(f"{{table: sale{one}, column: at, interval: 1 month}}" for one in range(tables))
    for one in range(number):
        file = folder / "defs" / f"c{one:02}" / "defs.yaml"
        file.parent.mkdir(parents=True)
        file.write_text(_DECLARED.format(name=f"c{one:02}", tables=partitioned))
    return Project.at(folder)


def test_a_job_is_made_from_the_assets_of_its_database_however_many_others_there_are(tmp_path: Path) -> None:
    looked_through: dict[int, int] = {}
    for number in (2, 12):
        repository = definitions_of(project(tmp_path / str(number), number)).get_repository_def()
        with mock.patch.object(asset_job, "_subset_assets_defs", wraps=asset_job._subset_assets_defs) as subset:
            repository.get_all_jobs()
        looked_through[number] = max(len(list(call.args[0])) for call in subset.call_args_list)
        assert {job.tags["dbplatform/database"] for job in repository.get_all_jobs() if not job.name.startswith("_")}
    assert looked_through[12] == looked_through[2]


def test_a_run_loads_the_definitions_of_its_database_alone(tmp_path: Path) -> None:
    platform = Platform(project(tmp_path, 12))
    with mock.patch.object(
        component.ManagedDatabase, "build_defs", autospec=True, side_effect=component.ManagedDatabase.build_defs
    ) as built:
        job = find_job(platform, platform.declared("c07"), "c07_quality")
    assert [call.args[0].declared.name for call in built.call_args_list] == ["c07"]
    assert {key.path[0] for key in job.asset_layer.selected_asset_keys} == {"c07"}
    whole = definitions_of(platform.project).get_repository_def().get_job("c07_quality")
    assert job.asset_layer.selected_asset_keys == whole.asset_layer.selected_asset_keys
    assert job.tags == whole.tags


def test_a_process_of_one_run_loads_what_its_job_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = project(tmp_path, 3)
    monkeypatch.setenv("DBPLATFORM_PROJECT", str(made.root))

    def databases() -> set[str]:
        graph = reconstructed().get_definition().asset_graph
        return {key.path[0] for key in graph.executable_asset_keys}

    def reconstructed() -> ReconstructableRepository:
        return ReconstructableRepository.for_module("dbplatform.definitions", "definitions", str(tmp_path))

    assert location.job_of_this_process() is None
    assert databases() == {"c00", "c01", "c02"}
    with mock.patch.dict(os.environ, {"DAGSTER_RUN_JOB_NAME": "c01_periods_sale0"}):
        assert databases() == {"c01"}
    with mock.patch.dict(os.environ, {"DAGSTER_RUN_JOB_NAME": "__ASSET_JOB"}):
        assert databases() == {"c00", "c01", "c02"}
    job = reconstructed().get_reconstructable_job("c02_quality")
    with mock.patch.object(multiprocessing.current_process(), "_args", ("its run", job), create=True):
        assert databases() == {"c02"}
        assert job.get_definition().name == "c02_quality"


def test_conditions_beyond_the_limit_are_shared_by_several_sensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(automation, "MOST", 15)
    declared = Platform(project(tmp_path, 12, tables=2)).declarations.databases
    shares = automation._shares(declared)
    assert len(shares) > 1
    assert sorted(one.name for share in shares for one in share) == [one.name for one in declared]
    fewer = automation._shares([one for one in declared if one.name != "c03"])
    assert [[one for one in share if one.name != "c03"] for share in shares] == fewer, "the others keep their sensor"
    repository = definitions_of(Project.at(tmp_path)).get_repository_def()
    graph = repository.asset_graph
    seen: list[dg.AssetKey] = []
    made = [one for one in repository.sensor_defs if isinstance(one, dg.AutomationConditionSensorDefinition)]
    for sensor in made:
        keys = [key for key in sensor.asset_selection.resolve(graph) if graph.get(key).automation_condition]
        assert len(keys) <= automation.MOST
        seen += keys
    assert sorted(seen) == sorted(key for key in graph.materializable_asset_keys if graph.get(key).automation_condition)
    assert automation.NAME in {one.name for one in made}
    assert len(made) == sum(map(bool, shares))


def test_the_last_ticks_of_many_schedules_are_asked_for_at_once(tmp_path: Path) -> None:
    repository = definitions_of(project(tmp_path, 12)).get_repository_def()
    place = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("here"), "__repository__")
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        for schedule in repository.schedule_defs:
            about = ScheduleInstigatorData(str(schedule.cron_schedule), 0.0)
            origin = RemoteInstigatorOrigin(place, schedule.name)
            running = InstigatorState(origin, InstigatorType.SCHEDULE, InstigatorStatus.RUNNING, about)
            instance.add_instigator_state(running)
        jobs = {f"c{one:02}": {f"c{one:02}_daily", f"c{one:02}_weekly"} for one in range(12)}
        with mock.patch.object(instance, "get_batch_ticks", wraps=instance.get_batch_ticks) as asked:
            assert sensors._ticks_of(instance, repository, jobs) == {name: [] for name in jobs}
        assert asked.call_count == 1
        assert len(asked.call_args.args[0]) == 24


@pytest.fixture
def fleet(tmp_path: Path, server_url: str, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    with declared_fleet(tmp_path, server_url, ("good", "bad")) as made, created(server_url, "template1") as dagster:
        for name, url in made.urls.items():
            monkeypatch.setenv(f"{name.upper()}_URL", url)
        parts = psycopg.conninfo.conninfo_to_dict(dagster.url)
        own = "postgresql+psycopg2://{user}:{password}@{host}:{port}/{dbname}".format(**parts)
        for name, value in (
            ("DBPLATFORM_LEDGER_URL", ledger.target.url),
            ("DBPLATFORM_DAGSTER_URL", own),
            ("DBPLATFORM_HOME", str(tmp_path / "home")),
        ):
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("DAGSTER_HOME", raising=False)
        monkeypatch.delenv("DBPLATFORM_PROJECT", raising=False)
        yield made


def test_every_database_gets_its_run_whatever_becomes_of_another(
    fleet: Fleet, capsys: pytest.CaptureFixture[str]
) -> None:
    fleet.migration("V2__own.sql", "select 1 / 0;\n", of="bad")
    fleet.declare("cold", "  freeze: [{from: 2020-01-01, to: 2100-01-01, reason: history}]\n")
    broken = fleet.folder / "defs" / "torn" / "defs.yaml"
    broken.parent.mkdir()
    broken.write_text("")
    type_ = typist(fleet.folder, capsys)
    ran = type_("run", "--all", "--job", "migrate", "--parallel", "2", "--json")
    assert ran.code == 3
    found = {run["database"]: run for run in ran.json["runs"]}
    assert {name: run["status"] for name, run in found.items()} == {
        "bad": "failed", "cold": "frozen", "good": "succeeded", "torn": "broken",
    }  # fmt: skip
    assert "division by zero" in found["bad"]["error"]["message"]
    assert found["good"]["run_id"] is not None
    assert ran.json["peak_bytes"] >= found["good"]["peak_bytes"] > 50 << 20
    assert fleet.versions() == {"good": "1", "bad": "1"}
    none = type_("run", "--all", "--except", "bad,torn", "--job", "nothing", "--json")
    assert (none.code, none.json["error"]["kind"]) == (2, "no_such_job")


@pytest.mark.drill(sample=False)
def test_ctrl_c_ends_every_run_and_says_which_did_not_begin(fleet: Fleet, server_url: str) -> None:
    fleet.migration("V2__slow.sql", "select pg_sleep(600);\n")
    fleet.execute("good", "select 1")
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dbplatform.cli.main", "-C", str(fleet.folder)),
            *("run", "--all", "--job", "migrate", "--parallel", "1", "--json"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    try:
        with psycopg.connect(server_url, autocommit=True) as connection:
            until_asleep(connection, 1)
            process.send_signal(signal.SIGINT)
            out, _ = process.communicate(timeout=120)
            until_asleep(connection, 0)
    finally:
        process.kill()
    assert process.returncode == 3
    assert {run["database"]: run["status"] for run in json.loads(out)["runs"]} == {
        "bad": "stopped", "good": "not begun",
    }  # fmt: skip
    with psycopg.connect(os.environ["DBPLATFORM_LEDGER_URL"]) as ledger:
        states = ledger.execute("select distinct status from ledger.operation where database = 'bad'").fetchall()
    assert states == [("failed",)]
