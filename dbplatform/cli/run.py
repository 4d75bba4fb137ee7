"""``dbplatform run``: launch a Dagster job without the UI; the run is recorded in the instance and shows in the UI."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from dbplatform import progress
from dbplatform.cli.common import bars, json_option, note, opened, say, show_json
from dbplatform.cli.verdict import show_verdict
from dbplatform.declaration.loading import Declared
from dbplatform.errors import NotBuiltYet, UsageError, WorkError
from dbplatform.operations.platform import Platform
from dbplatform.reporting.evidence import load_evidence
from dbplatform.reporting.publish import Published, dagster_address, service_address
from dbplatform.reporting.store import report_of


class RunFailed(WorkError):
    """The run of {job} failed in {step}: {reason}"""


class UnknownJob(UsageError):
    """The database {database} has no job {job!r}."""


class BadRunConfig(UsageError):
    """The run configuration does not fit the job {job}: {reason}"""


@click.command()
@click.argument("database", required=False)
@click.option("--job", "job_name", help="The job; by default the main one, named as the database.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML as in the Launchpad.")
@click.option("--dry-run", is_flag=True, help="Show what each step would do and change nothing.")
@click.option("--fail-on", type=click.Choice(["warn", "error"]), help="Exit 1 when a check of this severity failed.")
@click.option("--all", "all_databases", is_flag=True, hidden=True)
@click.option("--owner", hidden=True)
@json_option
@click.pass_context
def command(
    context: click.Context,
    database: str | None,
    job_name: str | None,
    config_file: Path | None,
    dry_run: bool,
    fail_on: str | None,
    all_databases: bool,
    owner: str | None,
    as_json: bool,
) -> int:
    """Run a job of DATABASE, by default the whole graph. Exit 0 when every step succeeded, whatever checks found."""
    if all_databases or owner:
        raise NotBuiltYet(what="run --all and run --owner", hint="Name one database.")
    if database is None:
        raise UsageError("run needs the name of a database.", hint="See which are declared: dbplatform list")
    platform, declared = opened(context, database)
    declared.url_from_environment()
    config = _read_config(config_file)
    if dry_run:
        config.setdefault("resources", {}).setdefault("options", {}).setdefault("config", {})["dry_run"] = True
    run_id, seconds = _launch(platform, declared, job_name or database, config, quiet=as_json)
    published = _published(platform, run_id)
    findings = _findings(published, fail_on)
    if as_json:
        show_json(
            {
                "database": database,
                "job": job_name or database,
                "run_id": run_id,
                "status": "succeeded",
                "seconds": round(seconds, 2),
                "verdict": published.run.verdict if published else None,
                "report": str(published.path) if published else None,
            }
        )
    else:
        if published is not None:
            say("")
            show_verdict(published)
        say(f"run:    {run_id}, {seconds:.1f} s")
        say("look:   make dev, then " + escape(f"{dagster_address()}/runs/{run_id}"))
    return 1 if findings else 0


def _read_config(file: Path | None) -> dict[str, Any]:
    if file is None:
        return {}
    import yaml

    try:
        config = yaml.safe_load(file.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise UsageError(f"{file} cannot be read as YAML: {error}", hint="Copy it from the Launchpad.") from error
    if not isinstance(config, dict):
        raise UsageError(f"{file} holds no mapping.", hint="Copy it from the Launchpad.")
    return config


def _launch(
    platform: Platform, declared: Declared, job_name: str, config: dict[str, Any], *, quiet: bool
) -> tuple[str, float]:
    """Execute the job in this process; returns the run's id and its seconds. Raises ``RunFailed``."""
    started = time.monotonic()
    if not quiet:
        note(f"[dim]{declared.name}: starting PostgreSQL and Dagster[/]")
    from dbplatform.orchestration import instance as instances

    instances.prepare_instance(platform)
    os.environ["DBPLATFORM_PROJECT"] = str(platform.project.root)
    import dagster as dg

    from dbplatform.definitions import definitions

    repository = definitions().get_repository_def()
    if not repository.has_job(job_name) or not _belongs(repository.get_job(job_name), declared):
        names = [j.name for j in repository.get_all_jobs() if _belongs(j, declared)]
        raise UnknownJob(database=declared.name, job=job_name, hint=f"It has: {', '.join(names)}.")
    job = repository.get_job(job_name)
    # Dagster's console logger would print every event between the bars; the instance keeps them all.
    config = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}, **config}
    steps = len(job.nodes)
    done = 0

    with dg.DagsterInstance.get() as instance, bars(enabled=not quiet) as above:
        for dead in instances.end_runs_of_dead_processes(instance):
            above(f"[yellow]the process of run {dead} was gone: its run is ended, its place in the pool freed[/]")
        began: dict[str, float] = {}

        def hear(fact: progress.Progress) -> None:
            nonlocal done
            if not fact.task.startswith("step "):
                return
            name = fact.task.removeprefix("step ")
            if fact.done == 0:
                began[name] = time.monotonic()
                progress.report(f"run {job_name}", done=done, total=steps, unit="steps")
            else:
                done += 1
                above(f"[green]✓[/] {name:<40} [dim]{time.monotonic() - began[name]:6.2f} s[/]")

        with progress.listening(hear):
            try:
                result = job.execute_in_process(
                    instance=instance,
                    run_config=config,
                    raise_on_error=False,
                    tags={**instances.process_tags(), ".dagster/repository": "__repository__@dbplatform"},
                )
            except dg.DagsterInvalidConfigError as error:
                reason = "; ".join(e.message for e in error.errors)
                raise BadRunConfig(job=job_name, reason=reason, hint="Copy it from the Launchpad.") from error
    if not result.success:
        raise _run_failed(job_name, result)
    return result.run_id, time.monotonic() - started


def _belongs(job: Any, declared: Declared) -> bool:
    return bool(job.tags.get("dbplatform/database") == declared.name)


def _run_failed(job_name: str, result: Any) -> RunFailed:
    failures = [e for e in result.all_events if e.is_step_failure]
    if not failures:
        return RunFailed(job=job_name, step="Dagster", reason="see the run's log.", hint=f"Run {result.run_id}.")
    event = failures[0]
    data = event.event_specific_data
    cause = data.error.cause or data.error
    reason = data.user_failure_data.description if data.user_failure_data else cause.message.strip()
    return RunFailed(
        job=job_name,
        step=event.step_key.replace("__", "/"),
        reason=reason,
        hint=f"Run {result.run_id}: make dev, then {dagster_address()}/runs/{result.run_id}",
    )


def _published(platform: Platform, run_id: str) -> Published | None:
    """The report of the run, if its job wrote one."""
    from dbplatform.reporting.errors import ReportNotFound

    try:
        entry = report_of(platform.ledger, None, run_id)
    except ReportNotFound:
        return None
    return Published(
        path=platform.home.reports / entry.location,
        url=f"{service_address()}/reports/run/{run_id}",
        run=load_evidence(platform.ledger, run_id),
    )


def _findings(published: Published | None, fail_on: str | None) -> bool:
    if published is None or fail_on is None:
        return False
    severities = {"error"} if fail_on == "error" else {"warn", "error"}
    return any(check.bad and check.severity in severities for check in published.run.checks)
