"""``dbplatform runs``: the runs of the instance, and the places in pools that dead ones hold."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from dbplatform.cli.common import dry_run_option, json_option, platform_of, say, show_json, show_table

if TYPE_CHECKING:
    from dagster import DagsterInstance


@click.group("runs")
def command() -> None:
    """The runs, also those that nobody watches any more."""


@command.command("list")
@click.option("--limit", default=20, show_default=True, help="How many.")
@json_option
@click.pass_context
def list_(context: click.Context, limit: int, as_json: bool) -> None:
    """The newest runs, and the pools in which they hold a place."""
    from dbplatform.orchestration import instance

    with _instance(context) as opened:
        found = instance.list_runs(opened, limit=limit)
    if as_json:
        show_json({"runs": [run.as_json() for run in found]})
        return
    show_table(
        None,
        ("run", "job", "status", "started", "holds"),
        [
            (r.run_id, r.job, r.status, r.started_at and f"{r.started_at:%Y-%m-%d %H:%M} UTC", ", ".join(r.holds))
            for r in found
        ],
    )


@command.command()
@click.argument("run_id")
@dry_run_option
@json_option
@click.pass_context
def cancel(context: click.Context, run_id: str, dry_run: bool, as_json: bool) -> None:
    """Stop a run: its process here is told; one without a process here is ended in the instance."""
    from dbplatform.orchestration import instance

    with _instance(context) as opened:
        told = False if dry_run else instance.cancel_run(opened, run_id)
    document = {"run_id": run_id, "cancelled": told}
    words = "would be stopped" if dry_run else "is told to stop" if told else "has ended already"
    show_json(document) if as_json else say(f"run {run_id} {words}")


@command.command()
@click.argument("run_id")
@dry_run_option
@json_option
@click.pass_context
def free(context: click.Context, run_id: str, dry_run: bool, as_json: bool) -> None:
    """Give back the places in pools that an ended run still holds."""
    from dbplatform.orchestration import instance

    with _instance(context) as opened:
        if not dry_run:
            instance.free_run(opened, run_id)
    words = f"the places of run {run_id} {'would be' if dry_run else 'are'} free"
    show_json({"run_id": run_id, "freed": not dry_run}) if as_json else say(words)


@contextmanager
def _instance(context: click.Context) -> Iterator[DagsterInstance]:
    from dagster import DagsterInstance

    from dbplatform.orchestration.instance import prepare_instance

    prepare_instance(platform_of(context))
    with DagsterInstance.get() as opened:
        yield opened
