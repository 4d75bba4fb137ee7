"""``dbplatform partition``: plan and make the partitions of a database."""

from __future__ import annotations

from typing import Any

import click

from dbplatform.cli.common import (
    SubVerbs,
    bars,
    bold,
    database_argument,
    dry_run_option,
    json_option,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.operations import partitions


@click.group("partition", cls=SubVerbs, not_built_yet=("convert", "retire"))
def command() -> None:
    """Range partitions: history and ahead."""


@command.command()
@database_argument
@json_option
@click.pass_context
def plan(context: click.Context, database: str, as_json: bool) -> None:
    """Which partitions are missing."""
    found = partitions.plan(*opened(context, database)).as_json()
    show_json(found) if as_json else _show(found, "to create")


@command.command()
@database_argument
@dry_run_option
@json_option
@click.pass_context
def apply(context: click.Context, database: str, dry_run: bool, as_json: bool) -> None:
    """Make the missing partitions: SHARE UPDATE EXCLUSIVE on the parent, for milliseconds each.

    Rows of their ranges move out of the default partition: then ACCESS EXCLUSIVE, for as long as one range takes.
    """
    platform, declared = opened(context, database)
    planned = partitions.plan(platform, declared).as_json()
    if dry_run:
        show_json(planned) if as_json else _show(planned, "to create")
        return
    if not as_json:
        _show(planned, "to create")
    with bars():
        report = partitions.apply(platform, declared).as_json()
    show_json(report) if as_json else _show(report, "created")


def _show(document: dict[str, Any], what: str) -> None:
    for table in document["tables"]:
        create = table["create"]
        say(f"{bold(table['table'])}: {table['existing']} partitions, {len(create)} {what}, {_runs_out(table)}")
        if create:
            rows = [(p["name"], p["lower"], p["upper"], p["rows"]) for p in create]
            show_table(None, ("partition", "from", "to", "rows moved in"), rows)
        if table["default_rows"]:
            say(f"{table['default']} holds {table['default_rows']:,} rows")
        for left in table["left_in_default"]:
            say(
                f"  {left['rows']:,} rows of {left['name']} stay there: more than move_at_most; raise it in a quiet "
                "hour, or delete what is not needed"
            )
        for lock in table.get("locks", ()):
            say(f"  lock: {lock['mode']} on {lock['relation']} ({lock['why']})")


def _runs_out(table: dict[str, Any]) -> str:
    if table["horizon_days"] is None:
        return f"runs out after {table['horizon_numbers']:,} more numbers"
    return f"runs out in {table['horizon_days']:,.0f} days" if table["horizon_days"] else "covers nothing now"
