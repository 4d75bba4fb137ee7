"""``dbplatform report capacity|maintenance``: the reports about a quarter and a month, their list and reviews."""

from __future__ import annotations

from datetime import UTC

import click

from dbplatform.cli.common import bold, database_argument, json_option, opened, say, show_json, show_table
from dbplatform.operations import period_reviews
from dbplatform.operations.platform import Platform
from dbplatform.operations.reviews import Review
from dbplatform.reporting.capacity import headline as capacity_headline
from dbplatform.reporting.capacity import publish_capacity
from dbplatform.reporting.errors import ReportNotFound
from dbplatform.reporting.maintenance import headline, publish_maintenance
from dbplatform.reporting.periods import Kind, PeriodEntry, list_periods, period_report


@click.command("capacity")
@database_argument
@json_option
@click.pass_context
def capacity(context: click.Context, database: str, as_json: bool) -> None:
    """Write the capacity report of this quarter: when what runs out, and what grows, with plots."""
    platform, declared = opened(context, database)
    written = publish_capacity(platform, declared)
    path = written.entry.kept_at(platform.home.reports)
    if as_json:
        show_json({"id": written.entry.id, "report": path, **written.capacity.as_json()})
        return
    say(f"{bold(written.entry.id)}: {capacity_headline(written.capacity)}.")
    say(f"report: {bold(path)}")


@click.command("maintenance")
@database_argument
@click.option("--month", help="The month, such as 2026-10; by default the last whole one.")
@json_option
@click.pass_context
def maintenance(context: click.Context, database: str, month: str | None, as_json: bool) -> None:
    """Write the maintenance report of a month: what was done, what was not, and what to decide."""
    platform, declared = opened(context, database)
    written = publish_maintenance(platform, declared, month=month)
    path = written.entry.kept_at(platform.home.reports)
    if as_json:
        show_json({"id": written.entry.id, "report": path, **written.month.as_json()})
        return
    say(f"{bold(written.entry.id)}: {headline(written.month)}.")
    for one in written.decisions:
        by = f" (before {one.by.astimezone(UTC):%Y-%m-%d})" if one.by else ""
        say(f"\n{bold(one.urgency)}: {one.title}{by}\n  {one.why}")
        for words in one.also:
            say(f"  - {words}")
        say(f"  {bold(one.command)}")
    say(f"\nreport: {bold(path)}")


def show_list(
    platform: Platform, kind: Kind, database: str | None, *, limit: int, unreviewed: bool, as_json: bool
) -> int:
    """Show those of a kind, the newest first; the exit code: 1 where some wait and only those were asked for."""
    entries = list_periods(platform.ledger, kind, database, limit)
    said = period_reviews.reviews_of(platform.ledger, [entry.id for entry in entries])
    if unreviewed:
        entries = [entry for entry in entries if waits(entry, said.get(entry.id, []))]
    if as_json:
        reviewed = [
            {**entry.as_json(), "reviews": [one.as_json() for one in said.get(entry.id, [])]} for entry in entries
        ]
        show_json({"reports": reviewed})
    else:
        show_table(
            None,
            ("report", "written", "to decide", "review"),
            [
                (
                    entry.id,
                    f"{entry.created_at:%Y-%m-%d %H:%M} UTC",
                    entry.decisions,
                    _words(entry, said.get(entry.id, [])),
                )
                for entry in entries
            ],
        )
    return 1 if unreviewed and entries else 0


def waits(entry: PeriodEntry, said: list[Review]) -> bool:
    """Whether there is something to decide, and nobody has reviewed what it says now."""
    return entry.decisions > 0 and not any(review.current for review in said)


def _words(entry: PeriodEntry, said: list[Review]) -> str:
    current = [review for review in said if review.current]
    if current:
        return f"by {current[-1].reviewer}"
    return "waits" if waits(entry, said) else ""


def note_review(platform: Platform, id_: str, *, by: str, comment: str, dry_run: bool, as_json: bool) -> bool:
    """Note the review of such a report, and show it; False where none has this id."""
    try:
        entry = period_report(platform.ledger, id_)
    except ReportNotFound:
        return False
    made = period_reviews.review(platform.ledger, entry.id, by=by, comment=comment, way="command line", dry_run=dry_run)
    if as_json:
        show_json({"dry_run": dry_run, "reviews": [made.as_json()]})
    else:
        say(f"{entry.id} {'would be' if dry_run else 'is'} reviewed by {bold(made.reviewer)}")
    return True
