"""``dbplatform report``: the data-quality reports that were written."""

from __future__ import annotations

from typing import Any

import click

from dbplatform.cli import report_rows
from dbplatform.cli.common import SubVerbs, bold, json_option, platform_of, say, show_json, show_table
from dbplatform.reporting.evidence import load_evidence
from dbplatform.reporting.store import ReportEntry, list_reports, report_of
from dbplatform.reporting.words import summary_lines


@click.group("report", cls=SubVerbs, not_built_yet=("review",))
def command() -> None:
    """The data-quality reports, one per run."""


command.add_command(report_rows.command)


@command.command()
@click.argument("database", required=False)
@click.option("--run", "run_id", help="The report of this run; by default the newest.")
@json_option
@click.pass_context
def show(context: click.Context, database: str | None, run_id: str | None, as_json: bool) -> None:
    """What the newest report says, and where it lies."""
    platform = platform_of(context)
    if database is not None:
        platform.declarations.get(database)
    entry = report_of(platform.ledger, database, run_id)
    path = platform.home.reports / entry.location
    if as_json:
        show_json({**_as_json(entry), "report": str(path)})
        return
    for line in summary_lines(load_evidence(platform.ledger, entry.run_id)):
        say(line)
    say(f"\nreport: {bold(str(path))}")


@command.command("list")
@click.argument("database", required=False)
@click.option("--limit", default=20, show_default=True, help="How many.")
@json_option
@click.pass_context
def list_(context: click.Context, database: str | None, limit: int, as_json: bool) -> None:
    """The newest reports."""
    platform = platform_of(context)
    if database is not None:
        platform.declarations.get(database)
    entries = list_reports(platform.ledger, database, limit)
    if as_json:
        show_json({"reports": [_as_json(entry) for entry in entries]})
        return
    show_table(
        None,
        ("started", "database", "verdict", "checks", "failed", "errored", "run"),
        [(f"{e.started_at:%Y-%m-%d %H:%M} UTC", e.database, e.verdict, e.checks, e.failed, e.errored, e.run_id)
         for e in entries],
    )  # fmt: skip


def _as_json(entry: ReportEntry) -> dict[str, Any]:
    return {
        "run_id": entry.run_id,
        "database": entry.database,
        "verdict": entry.verdict,
        "started_at": entry.started_at,
        "finished_at": entry.finished_at,
        "tables": entry.tables,
        "checks": entry.checks,
        "failed": entry.failed,
        "errored": entry.errored,
        "location": entry.location,
        "sha256": entry.sha256,
    }
