"""The time by which something is removed for ever: this machine's, where the server's agrees with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dbplatform.errors import WorkError
from dbplatform.postgres.connection import AutocommitConnection

#: Far more than two clocks that are set by a network differ, far less than an age by which rows are removed.
MOST_APART = timedelta(hours=1)


class ClocksApart(WorkError):
    """This machine's clock is {apart} {which} the server's, so nobody can say what is old enough to be removed."""


def agreed_now(connection: AutocommitConnection) -> datetime:
    """Now, aware. Raises ``ClocksApart`` where the server's clock says that it is more than ``MOST_APART`` away."""
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    ours, theirs = datetime.now(UTC), row[0]
    if abs(ours - theirs) > MOST_APART:
        raise ClocksApart(
            apart=timedelta(seconds=round(abs(ours - theirs).total_seconds())),
            which="ahead of" if ours > theirs else "behind",
            hint="Let both machines set their clocks by NTP: chronyc tracking, or timedatectl status.",
        )
    return ours
