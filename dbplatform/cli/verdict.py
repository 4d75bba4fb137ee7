"""What a person reads after checks ran: the verdict, and where the report lies; or what a drill's checks say."""

from __future__ import annotations

from dbplatform.backups.checked import CheckProof, in_short
from dbplatform.cli.common import bold, say
from dbplatform.reporting.publish import Published
from dbplatform.reporting.words import summary_lines


def show_verdict(published: Published) -> None:
    """The verdict with its failing checks, and the report's file."""
    for line in summary_lines(published.run):
        say(line)
    say(f"\nreport: {bold(published.location)}")


def say_checks(checks: tuple[CheckProof, ...]) -> None:
    """What the checks said of the copy that a drill restored: in short, and each that does not speak for the backup."""
    if checks:
        say(f"  checks on the copy: {in_short(checks)}")
    for check in checks:
        if check.verdict in ("undecided", "failed"):
            table = check.table.removeprefix("public.")
            say(f"    {check.verdict}: {table} {check.check}: {check.message} ({check.reason})")
