"""``dbplatform quarantine``: the rows that checks have moved aside, and their way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

from dbplatform.cli.common import (
    ask_while_frozen,
    bars,
    confirmed,
    database_argument,
    dry_run_option,
    during_freeze_option,
    json_option,
    note,
    opened,
    say,
    show_json,
    show_table,
    yes_option,
)
from dbplatform.operations import quarantine
from dbplatform.operations.quarantine import Aside, Choice
from dbplatform.postgres.identifiers import Relation


@click.group("quarantine")
def command() -> None:
    """Rows that failed a check with a quarantine, moved aside."""


def _choosing(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option("--run", "run_id", help="Only what this run moved."),
        click.option("--check", help="Only rows that failed this check."),
        click.option("--table", help="Only rows of this table."),
    ):
        function = option(function)
    return function


@command.command("list")
@database_argument
@_choosing
@json_option
@click.pass_context
def list_(
    context: click.Context, database: str, table: str | None, check: str | None, run_id: str | None, as_json: bool
) -> None:
    """What lies aside: how many rows of which table, because of which checks, by which run."""
    platform, declared = opened(context, database)
    found = quarantine.rows_aside(platform, declared, _choice(table, check, run_id))
    show_json(_as_json(database, found)) if as_json else _show(found)


@command.command("return")
@database_argument
@_choosing
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def return_(
    context: click.Context,
    database: str,
    table: str | None,
    check: str | None,
    run_id: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> int:
    """Put rows back into their tables, as they are in the quarantine now: mend them there first.

    A row that still fails is moved aside again by the next run. Exit 1 when a table refused rows: they stay.
    """
    platform, declared = opened(context, database)
    choice = _choice(table, check, run_id)
    planned = quarantine.rows_aside(platform, declared, choice)
    if not as_json:
        _show(planned)
    if dry_run or not planned:
        if as_json:
            show_json({**_as_json(database, planned), "dry_run": dry_run, "returned": []})
        return 0
    rows = sum(aside.rows for aside in planned)
    ask_while_frozen(context, declared)
    confirmed(f"Return {rows:,} rows of {database} to their tables?", yes=yes)
    with bars():
        returned = quarantine.give_rows_back(platform, declared, choice)
    if as_json:
        show_json({**_as_json(database, planned), "dry_run": False, "returned": [one.as_json() for one in returned]})
    for one in returned:
        if not as_json:
            say(f"{one.rows:,} rows went back to {one.table.words}.")
        for reason, number in one.stay.items():
            note(f"{number:,} rows stay in {one.place}: {reason}")
    return 1 if any(one.stay for one in returned) else 0


def _choice(table: str | None, check: str | None, run_id: str | None) -> Choice:
    return Choice(table=None if table is None else Relation.parse(table), check=check, run_id=run_id)


def _as_json(database: str, found: Sequence[Aside]) -> dict[str, Any]:
    return {"database": database, "quarantine": [aside.as_json() for aside in found]}


def _show(found: Sequence[Aside]) -> None:
    if not found:
        say("No row lies aside.")
        return
    show_table(
        None,
        ("table", "rows", "because of", "moved at", "run", "lies in"),
        [
            (a.table.words, a.rows, ", ".join(a.checks), f"{a.last_at:%Y-%m-%d %H:%M} UTC", a.run_id, str(a.place))
            for a in found
        ],
    )
