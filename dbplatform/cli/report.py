"""``dbplatform report``: the reports that were written, of checks, months and quarters, and who has reviewed them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import click

from dbplatform.cli import report_periods, report_rows
from dbplatform.cli.common import (
    SubVerbs,
    bold,
    confirmed,
    database_argument,
    dry_run_option,
    json_option,
    opened,
    platform_of,
    say,
    show_json,
    show_table,
    yes_option,
)
from dbplatform.errors import UsageError
from dbplatform.ledger.acting import user
from dbplatform.operations import reviews
from dbplatform.operations.platform import Platform
from dbplatform.operations.reviews import Review
from dbplatform.reporting import retention
from dbplatform.reporting.errors import ReportNotFound
from dbplatform.reporting.evidence import load_evidence
from dbplatform.reporting.store import ReportEntry, list_reports, read_report, report_of, report_that_begins
from dbplatform.reporting.words import summary_lines, utc


class ReportGone(UsageError):
    """The {form} of the report is not what was written: {location}."""


@click.group("report", cls=SubVerbs)
def command() -> None:
    """The reports of data quality, one per run; of maintenance by month and capacity by quarter; and their reviews."""


command.add_command(report_rows.command)
command.add_command(report_periods.capacity)
command.add_command(report_periods.maintenance)


@command.command()
@click.argument("database", required=False)
@click.option("--run", "run_id", help="The report of this run, or of the one that begins so; by default the newest.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "html", "json", "junit"]),
    default="text",
    help="The report as it was written, in one of its forms; by default what it says in short.",
)
@json_option
@click.pass_context
def show(context: click.Context, database: str | None, run_id: str | None, form: str, as_json: bool) -> None:
    """What the newest report says, and where it lies."""
    platform = platform_of(context)
    entry = _chosen(platform, database, run_id)
    if form != "text":
        _show_form(platform, entry, form)
        return
    path = entry.kept_at(platform.home.reports)
    said = reviews.reviews_of(platform.ledger, [entry.run_id]).get(entry.run_id, [])
    if as_json:
        show_json({**_as_json(entry, said), "report": path})
        return
    for line in summary_lines(load_evidence(platform.ledger, entry.run_id)):
        say(line)
    for review in said:
        anew = "" if review.current else " (the report was written anew since)"
        say(f"\nreviewed by {bold(review.reviewer)}, {utc(review.reviewed_at)}{anew}: {review.comment}")
    if entry.waits:
        say(f"\nnobody has reviewed it: dbplatform report review {entry.run_id[:8]} --comment TEXT")
    say(f"\nreport: {bold(path)}")


@command.command("list")
@click.argument("database", required=False)
@click.option("--limit", default=20, show_default=True, help="How many.")
@click.option("--verdict", type=click.Choice(["passed", "failed", "errored"]), help="Only those of this verdict.")
@click.option("--unreviewed", is_flag=True, help="Only failing ones that nobody has reviewed; exit 1 for any.")
@click.option(
    "--kind",
    type=click.Choice(["quality", "capacity", "maintenance"]),
    default="quality",
    show_default=True,
    help="What they are about.",
)
@json_option
@click.pass_context
def list_(
    context: click.Context,
    database: str | None,
    limit: int,
    verdict: str | None,
    unreviewed: bool,
    kind: Literal["quality", "capacity", "maintenance"],
    as_json: bool,
) -> int:
    """The newest reports. Those of capacity and maintenance wait for a review while something is to be decided."""
    platform = platform_of(context)
    if database is not None:
        platform.declarations.get(database)
    if kind != "quality":
        return report_periods.show_list(platform, kind, database, limit=limit, unreviewed=unreviewed, as_json=as_json)
    reviewed = False if unreviewed else None
    entries = list_reports(platform.ledger, database, limit, verdict=verdict, reviewed=reviewed)
    said = reviews.reviews_of(platform.ledger, [entry.run_id for entry in entries])
    if as_json:
        show_json({"reports": [_as_json(entry, said.get(entry.run_id, [])) for entry in entries]})
    elif unreviewed and not entries:
        say("every failing report was reviewed")
    else:
        show_table(
            None,
            ("started", "database", "verdict", "checks", "failed", "errored", "review", "run"),
            [(f"{e.started_at:%Y-%m-%d %H:%M} UTC", e.database, e.verdict, e.checks, e.failed, e.errored,
              _review_words(e, said.get(e.run_id, [])), e.run_id) for e in entries],
        )  # fmt: skip
    return 1 if unreviewed and entries else 0


@command.command()
@click.argument("run_id", metavar="ID")
@click.option("--comment", required=True, help="What you found, and what is done about it.")
@click.option("--by", default=None, help="Who has read it; by default the user of this machine.")
@click.option("--and-earlier", is_flag=True, help="Also every older failing report of the database that waits.")
@dry_run_option
@json_option
@click.pass_context
def review(
    context: click.Context, run_id: str, comment: str, by: str | None, and_earlier: bool, dry_run: bool, as_json: bool
) -> None:
    """Mark a report as reviewed. ID is the run's, or how it begins; or that of a month or quarter.

    A report may have several reviews; one that is written anew with other results waits for one again.
    """
    platform = platform_of(context)
    by = by if by is not None else user()
    if report_periods.note_review(platform, run_id, by=by, comment=comment, dry_run=dry_run, as_json=as_json):
        return
    entry = report_that_begins(platform.ledger, None, run_id)
    made = reviews.review(
        platform.ledger,
        entry.run_id,
        by=by,
        comment=comment,
        way="command line",
        and_earlier=and_earlier,
        dry_run=dry_run,
    )
    if as_json:
        show_json({"dry_run": dry_run, "reviews": [one.as_json() for one in made]})
        return
    for one in made:
        say(f"{entry.database}, run {one.run_id}: {'would be' if dry_run else 'is'} reviewed by {bold(one.reviewer)}")


@command.command()
@database_argument
@dry_run_option
@yes_option
@json_option
@click.pass_context
def prune(context: click.Context, database: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Remove reports that are older than reports.retain says: never the newest, nor a failing one that waits."""
    platform, declared = opened(context, database)
    now = datetime.now(UTC)
    due = retention.plan_prune(platform, declared, now=now)
    if due and not dry_run:
        confirmed(f"Remove {len(due)} reports of {database}, the newest of {utc(due[-1].started_at)}?", yes=yes)
        due = retention.apply_prune(platform, declared, due, now=now)
    if as_json:
        show_json({"database": database, "dry_run": dry_run, "reports": [one.as_json() for one in due]})
        return
    for one in due:
        say(f"{'would remove' if dry_run else 'removed'} {one.location}")
    if not due:
        say("no report is due")


def _chosen(platform: Platform, database: str | None, run_id: str | None) -> ReportEntry:
    if database is not None:
        platform.declarations.get(database)
    if run_id is not None:
        return report_that_begins(platform.ledger, database, run_id)
    return report_of(platform.ledger, database)


def _show_form(platform: Platform, entry: ReportEntry, form: str) -> None:
    """The file as it was written, to standard output."""
    if form not in entry.forms:
        raise ReportNotFound(
            what=f"run {entry.run_id} as {form}", hint="It is of an earlier version: run the checks again."
        )
    content = read_report(platform.home.reports, entry, form)
    if content is None:
        raise ReportGone(
            form=form,
            location=entry.kept_at(platform.home.reports, form),
            hint=f"Run the checks again: dbplatform check {entry.database}",
        )
    click.echo(content, nl=False)


def _review_words(entry: ReportEntry, said: list[Review]) -> str:
    current = [review for review in said if review.current]
    if current:
        return f"by {current[-1].reviewer}"
    return "waits" if entry.waits else ""


def _as_json(entry: ReportEntry, said: list[Review]) -> dict[str, Any]:
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
        "destination": entry.destination,
        "sha256": entry.sha256,
        "reviewed": entry.reviewed,
        "reviews": [review.as_json() for review in said],
    }
