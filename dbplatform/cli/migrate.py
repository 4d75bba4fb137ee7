"""``dbplatform migrate``: plan, apply and show the history of a database's migrations."""

from __future__ import annotations

from typing import Any

import click

from dbplatform.cli.common import (
    SubVerbs,
    bars,
    database_argument,
    dry_run_option,
    json_option,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.operations import schema


@click.group("migrate", cls=SubVerbs, not_built_yet=("undo", "lint", "rehearse", "test", "drift", "baseline", "repair"))
def command() -> None:
    """Migrations by Flyway's names, with Flyway's history table."""


@command.command()
@database_argument
@json_option
@click.pass_context
def plan(context: click.Context, database: str, as_json: bool) -> None:
    """What would be applied."""
    found = schema.plan(*opened(context, database)).as_json()
    show_json(found) if as_json else _show(found)


@command.command()
@database_argument
@click.option("--target", help="Stop after this version.")
@dry_run_option
@json_option
@click.pass_context
def apply(context: click.Context, database: str, target: str | None, dry_run: bool, as_json: bool) -> None:
    """Apply what is pending; a no-op when nothing is."""
    platform, declared = opened(context, database)
    planned = schema.plan(platform, declared, target=target)
    if dry_run:
        show_json(planned.as_json()) if as_json else _show(planned.as_json())
        return
    if not as_json:
        _show(planned.as_json())
    with bars():
        report = schema.apply(platform, declared, target=target).as_json()
    show_json(report) if as_json else _show(report)


@command.command()
@database_argument
@json_option
@click.pass_context
def history(context: click.Context, database: str, as_json: bool) -> None:
    """The history table: what was applied, when, by whom."""
    rows = [row.as_json() for row in schema.history(*opened(context, database))]
    if as_json:
        show_json({"database": database, "history": rows})
        return
    show_table(
        None,
        ("rank", "version", "description", "type", "script", "by", "on", "ms", "success"),
        [
            (
                r["installed_rank"],
                r["version"],
                r["description"],
                r["type"],
                r["script"],
                r["installed_by"],
                r["installed_on"],
                r["execution_time"],
                r["success"],
            )
            for r in rows
        ],
    )


def _show(document: dict[str, Any]) -> None:
    migrations = document["migrations"]
    pending = [m for m in migrations if m["status"] == "pending"]
    if pending:
        show_table(
            f"{document['database']}: {len(pending)} pending, now at version {document['current'] or 'none'}",
            ("version", "description", "script"),
            [(m["version"] or "repeatable", m["description"], m["script"]) for m in pending],
        )
        return
    done = [m for m in migrations if m["status"] == "applied" and m["seconds"] is not None]
    if done:
        show_table(
            f"{document['database']}: {len(done)} applied, now at version {document['current'] or 'none'}",
            ("version", "description", "seconds"),
            [(m["version"] or "repeatable", m["description"], m["seconds"]) for m in done],
        )
    else:
        say(f"{document['database']}: nothing to do, at version {document['current'] or 'none'}")
