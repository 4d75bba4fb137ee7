"""``dbplatform runs``: the runs of the instance, and the places in pools that dead ones hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dbplatform.cli.common import dry_run_option, json_option, platform_of, say, show_json, show_table
from dbplatform.operations.platform import Platform

if TYPE_CHECKING:
    from dagster import DagsterInstance

#: What a run is, by its process.
_CANCELLED = {
    "alive": "told to stop",
    "gone": "marked as cancelled, its places in pools freed: its process is gone",
    "unknown": "marked as cancelled, its places in pools freed; no process of it can be seen from here: "
    "if it works on another machine, end it there",
}


@click.group("runs")
def command() -> None:
    """The runs, also those that nobody watches any more."""


@command.command("list")
@click.option("--limit", default=20, show_default=True, help="How many.")
@json_option
@click.pass_context
def list_(context: click.Context, limit: int, as_json: bool) -> None:
    """The newest runs, and the pools in which they hold a place."""
    from dbplatform.orchestration import runs

    with _instance(context) as (_, opened):
        found = runs.list_runs(opened, limit=limit)
    if as_json:
        show_json({"runs": [run.as_json() for run in found]})
        return
    show_table(
        None,
        ("run", "job", "database", "status", "process", "started", "holds"),
        [
            (
                *(run.run_id, run.job, run.database, run.status, run.process),
                run.started_at and f"{run.started_at:%Y-%m-%d %H:%M} UTC",
                ", ".join(run.holds),
            )
            for run in found
        ],
    )


@command.command()
@click.argument("run_id")
@dry_run_option
@json_option
@click.pass_context
def cancel(context: click.Context, run_id: str, dry_run: bool, as_json: bool) -> None:
    """Stop a run: its process here is told; one without a process here is marked as cancelled, its places are freed."""
    from dbplatform.orchestration import runs

    with _instance(context) as (platform, opened):
        process = runs.cancel_run(opened, platform.ledger, run_id, dry_run=dry_run)
    document = {"run_id": run_id, "cancelled": process is not None and not dry_run, "process": process}
    is_ = "would be" if dry_run else "is"
    words = f"{is_} {_CANCELLED[process]}" if process is not None else "has ended already"
    show_json(document) if as_json else say(f"run {run_id} {words}")


@command.command()
@click.argument("run_id")
@dry_run_option
@json_option
@click.pass_context
def free(context: click.Context, run_id: str, dry_run: bool, as_json: bool) -> None:
    """Give back the places in pools of a run that has ended; one whose process is gone is ended first, as failed."""
    from dbplatform.orchestration import runs

    with _instance(context) as (platform, opened):
        found = runs.free_run(opened, platform.ledger, run_id, dry_run=dry_run)
    if as_json:
        show_json({**found.as_json(), "freed": not dry_run})
        return
    if found.ended:
        say(f"run {run_id} {'would be' if dry_run else 'is'} ended as failed: its process is gone")
    places = ", ".join(found.pools) or "none"
    say(f"its places in pools ({places}) {'would be' if dry_run else 'are'} free")


@contextmanager
def _instance(context: click.Context) -> Iterator[tuple[Platform, DagsterInstance]]:
    from dagster import DagsterInstance

    from dbplatform.orchestration.instance import prepare_instance

    platform = platform_of(context)
    prepare_instance(platform)
    with DagsterInstance.get() as opened:
        yield platform, opened
