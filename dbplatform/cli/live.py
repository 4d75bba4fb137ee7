"""``dbplatform live``: tables whose changes are pushed to who watches."""

from __future__ import annotations

from typing import Any

import click

from dbplatform.cli.common import (
    ask_while_frozen,
    bars,
    database_argument,
    dry_run_option,
    during_freeze_option,
    json_option,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.operations import live


@click.group()
def command() -> None:
    """Live tables: what is committed in them is on /ws at once."""


@command.command()
@database_argument
@json_option
@click.pass_context
def plan(context: click.Context, database: str, as_json: bool) -> None:
    """Which of the declared tables are live, and what would be done."""
    document = live.plan(*opened(context, database)).as_json()
    show_json(document) if as_json else _show(document)


@command.command()
@database_argument
@dry_run_option
@during_freeze_option
@json_option
@click.pass_context
def apply(context: click.Context, database: str, dry_run: bool, as_json: bool) -> None:
    """Make the declared tables live, and no others.

    Lock: SHARE ROW EXCLUSIVE on each that becomes live, ACCESS EXCLUSIVE on one that is no longer; waited for 2 s at a
    time.
    """
    platform, declared = opened(context, database)
    document = live.plan(platform, declared).as_json()
    if not as_json:
        _show(document)
    if not dry_run:
        if document["actions"]:
            ask_while_frozen(context, declared)
        with bars():
            document = live.apply(platform, declared).as_json()
        if not as_json:
            say(f"{len(document['actions'])} tables changed.")
    if as_json:
        show_json(document)


def _show(document: dict[str, Any]) -> None:
    if document["live"]:
        say(f"live: {', '.join(document['live'])}")
    show_table(
        None,
        ("table", "do", "lock", "because"),
        [(one["table"], one["do"], one["lock"], one["reason"]) for one in document["actions"]],
    )
    for one in document["actions"]:
        for statement in one["statements"]:
            say(f"  {statement};")
    if not document["live"] and not document["actions"]:
        say(f"{document['database']} declares no live tables.")
