"""``dbplatform audit``: every change by whom, from where, with which run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from dbplatform.cli.common import DURATION, SubVerbs, json_option, platform_of, say, show_json, show_table
from dbplatform.operations import audit


@click.group("audit", cls=SubVerbs)
def command() -> None:
    """The audit log: what was changed, by the command line, by Dagster and over HTTP."""


@command.command("list")
@click.argument("database", required=False)
@click.option("--since", type=DURATION, default="7 days", show_default=True, help="How far back.")
@click.option("--limit", type=click.IntRange(1, audit.MOST), default=50, show_default=True, help="The newest so many.")
@json_option
@click.pass_context
def list_(context: click.Context, database: str | None, since: timedelta, limit: int, as_json: bool) -> None:
    """What was changed in a database, declared still or not; without one, in all of them and in the platform."""
    found = audit.changes(platform_of(context).ledger, database, since=datetime.now(UTC) - since, limit=limit)
    if as_json:
        show_json({"changes": [one.as_json() for one in found]})
    elif not found:
        say("nothing was changed")
    else:
        show_table(
            None,
            ("at", "database", "what", "of", "status", "by", "way", "from", "run"),
            [
                (
                    f"{one.at:%Y-%m-%d %H:%M:%S} UTC",
                    one.database,
                    one.act,
                    one.subject,
                    one.status,
                    one.actor,
                    one.way,
                    one.origin,
                    one.run_id,
                )
                for one in found
            ],
        )
