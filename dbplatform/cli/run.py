"""``dbplatform run``: launch a Dagster job without the UI; the run is recorded in the instance and shows in the UI."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

from dbplatform import progress
from dbplatform.addresses import dagster_address
from dbplatform.cli.common import (
    Many,
    ask_while_frozen,
    bars,
    bold,
    during_freeze_option,
    json_option,
    many_options,
    note,
    opened,
    say,
    show_json,
)
from dbplatform.cli.verdict import show_verdict
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.cadences import is_harmless
from dbplatform.reporting.errors import ReportNotFound
from dbplatform.reporting.publish import Published, published

if TYPE_CHECKING:
    from dbplatform.orchestration.launch import Launched, SchemaCheck


class NothingToJudge(UsageError):
    """--fail-on {severity} cannot be judged: this run writes no report."""


@click.command()
@many_options
@click.option("--job", "job_name", help="The job; by default the main one, named as the database.")
@click.option("--partition", "partition", help="The period, for a job of periods: 2026-03.")
@click.option("--config", "config_file", type=click.Path(path_type=Path), help="YAML as in the Launchpad.")
@click.option("--dry-run", is_flag=True, help="Show what each step would do and change nothing.")
@during_freeze_option
@click.option("--fail-on", type=click.Choice(["warn", "error"]), help="Exit 1 when a check of this severity failed.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    database: str | None,
    many: Many | None,
    job_name: str | None,
    partition: str | None,
    config_file: Path | None,
    dry_run: bool,
    fail_on: str | None,
    as_json: bool,
) -> int:
    """Run a job of DATABASE, by default the whole graph. Exit 0 when every step succeeded, whatever checks found.

    Of many databases (--all, --owner) each has a process and a run of its own, whatever becomes of the others; the job
    is then written without the database's name: quality.
    """
    if many is not None:
        from dbplatform.cli.run_many import run_many

        _read_config(config_file, dry_run=dry_run)
        options = [("--job", job_name), ("--partition", partition), ("--config", config_file), ("--fail-on", fail_on)]
        return run_many(context, many, {key: str(value) for key, value in options if value}, dry_run, as_json)
    assert database is not None
    platform, declared = opened(context, database)
    declared.url_from_environment()
    job_name = job_name or database
    if not dry_run and not is_harmless(database, job_name):
        ask_while_frozen(context, declared)
    config = _read_config(config_file, dry_run=dry_run)
    if fail_on and (dry_run or not _reports(job_name, database)):
        raise NothingToJudge(severity=fail_on, hint=f"Run {database} or {database}_quality, without --dry-run.")
    started = time.monotonic()
    launched = _launch(platform, declared, job_name, config, partition, quiet=as_json)
    run_id, steps = launched.run_id, {name: dict(found) for name, found in launched.steps.items()}
    seconds = time.monotonic() - started
    report = _published(platform, run_id)
    if as_json:
        show_json(
            {
                "database": database,
                "job": job_name,
                "run_id": run_id,
                "status": "succeeded",
                "dry_run": dry_run,
                "seconds": round(seconds, 2),
                "verdict": report.run.verdict if report else None,
                "report": report.location if report else None,
                "schema": [check.as_json() for check in launched.schema],
                "steps": steps,
            }
        )
    else:
        if dry_run:
            show_plan(steps)
        if report is not None:
            say("")
            show_verdict(report)
        _show_schema(launched.schema)
        _show_safety(database, steps)
        _show_restored(steps.get(f"{database}/restore", {}))
        say(f"run:    {run_id}, {seconds:.1f} s")
        say(f"look:   {platform.project.dev_command}, then {dagster_address()}/runs/{run_id}")
    return 1 if _findings(report, launched.schema, fail_on) else 0


def _reports(job_name: str, database: str) -> bool:
    return job_name in (database, f"{database}_quality")


def _read_config(file: Path | None, *, dry_run: bool) -> dict[str, Any]:
    config: dict[str, Any] = {}
    if file is not None:
        try:
            loaded = yaml.safe_load(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = " ".join(str(error).split())
            raise UsageError(f"{file} cannot be read as YAML: {reason}", hint="Copy it from the Launchpad.") from error
        if not isinstance(loaded, dict):
            raise UsageError(f"{file} holds no mapping.", hint="Copy it from the Launchpad.")
        config = loaded
    if dry_run:
        resources = _mapping(config, "resources")
        options = _mapping(resources, "options")
        wanted = {**_mapping(options, "config"), "dry_run": True}
        config = {**config, "resources": {**resources, "options": {**options, "config": wanted}}}
    return config


def _mapping(value: dict[str, Any], key: str) -> dict[str, Any]:
    inner = value.get(key) or {}
    if not isinstance(inner, dict):
        raise UsageError(f"{key} holds no mapping in the run configuration.", hint="Copy it from the Launchpad.")
    return inner


def _launch(
    platform: Platform,
    declared: Declared,
    job_name: str,
    config: dict[str, Any],
    partition: str | None,
    *,
    quiet: bool,
) -> Launched:
    """Execute the job in this process."""
    if not quiet:
        note(f"{declared.name}: starting PostgreSQL and Dagster")
    from dbplatform.orchestration import instance, launch

    instance.prepare_instance(platform)
    os.environ["DBPLATFORM_PROJECT"] = str(platform.project.root)
    job = launch.find_job(platform, declared, job_name)
    with bars(enabled=not quiet) as above:
        if not quiet:
            above(f"{job_name}: {len(job.nodes)} steps")
        with progress.listening(_Steps(job_name, len(job.nodes), above)):
            look = f"{platform.project.dev_command}, then {dagster_address()}"
            return launch.launch(platform, declared, job, config, partition=partition, tell=above, look=look)


class _Steps:
    """Hears which step begins and ends: a bar over all of them, and a line for each that ended."""

    def __init__(self, job_name: str, total: int, above: Any) -> None:
        self.job_name, self.total, self.above = job_name, total, above
        self.done = 0
        self.began = time.monotonic()

    def __call__(self, fact: progress.Progress) -> None:
        if not fact.task.startswith("step "):
            return
        if fact.done == 0:
            self.began = time.monotonic()
            progress.report(f"run {self.job_name}", done=self.done, total=self.total, unit="steps")
        else:
            self.done += 1
            name = fact.task.removeprefix("step ")
            self.above(f"✓ {name:<40} {time.monotonic() - self.began:6.2f} s")


def show_plan(steps: dict[str, dict[str, Any]]) -> None:
    """What each step of a dry run would do."""
    for name, found in steps.items():
        if found.get("dry run"):
            said = [
                str(value) if key == "plan" else f"{key} {value}"
                for key, value in found.items()
                if isinstance(value, str | int | float)
            ]
            say(f"{bold(name)}: {', '.join(words for words in said if not words.startswith('dry run'))}")


def _show_schema(checks: Sequence[SchemaCheck]) -> None:
    """What the checks of the migrations found: a line for those that passed, and one for each that did not."""
    passed = [check.name for check in checks if check.passed]
    if passed:
        say(f"schema: {', '.join(passed)} {bold('passed')}")
    for check in checks:
        if not check.passed:
            say(f"schema: {check.name} {bold('FAILED')}: {check.message}")


def _show_safety(database: str, steps: dict[str, dict[str, Any]]) -> None:
    """What is proven of the backup, and where the archived rows are: a line each."""
    drill = steps.get(f"{database}/restore_drill", {})
    if drill.get("proven"):
        folder = steps.get(f"{database}/backup", {}).get("folder", drill["backup"])
        say(f"backup: {bold('proven')}, restored and compared in {drill['RTO seconds']:.1f} s (RTO): {folder}")
    prefix = f"{database}/archive/"
    for name, found in steps.items():
        if not name.startswith(prefix) or "rows archived" not in found:
            continue
        words = f"{name.removeprefix(prefix)} holds {found['rows in archives']:,} rows"
        words += f", {found['rows archived']:,} of them by this run"
        if found["rows not proven"]:
            words += f"; {found['rows not proven']:,} old rows stay, because the proven backup does not hold them"
        if found["files"]:
            words += f"; its newest file is {bold('verified')}: {found['newest file']}"
        say(f"archive: {words}")


def _show_restored(found: dict[str, Any]) -> None:
    """What a restore brought back."""
    if "restored" in found:
        say(f"restored: {found['restored']}: {found['rows']:,} rows in {found['seconds']:.1f} s, each table compared")
    for erased in found.get("erased again", []):
        say(f"but for {erased['rows']:,} rows of {erased['table']} that were erased on purpose, and are again")


def _published(platform: Platform, run_id: str) -> Published | None:
    """The report of the run, if its job wrote one."""
    try:
        return published(platform, run_id)
    except ReportNotFound:
        return None


def _findings(published: Published | None, schema: Sequence[SchemaCheck], fail_on: str | None) -> bool:
    if published is None or fail_on is None:
        return False
    severities = {"error"} if fail_on == "error" else {"warn", "error"}
    bad: list[str] = [check.severity for check in published.run.checks if check.bad]
    bad += [check.severity for check in schema if not check.passed]
    return not severities.isdisjoint(bad)
