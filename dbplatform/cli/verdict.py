"""What a person reads after checks ran: the verdict, and where the report lies."""

from __future__ import annotations

from dbplatform.cli.common import bold, say
from dbplatform.reporting.publish import Published
from dbplatform.reporting.words import summary_lines


def show_verdict(published: Published) -> None:
    """The verdict with its failing checks, and the report's file."""
    for line in summary_lines(published.run):
        say(line)
    say(f"\nreport: {bold(str(published.path))}")
