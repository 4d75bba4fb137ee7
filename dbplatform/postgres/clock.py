"""The time by which something is removed for ever: the server's, where this machine's agrees with it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dbplatform.errors import WorkError
from dbplatform.postgres.connection import AnyConnection

#: Far more than two clocks that are set by a network differ, far less than an age by which rows are removed.
MOST_APART = timedelta(hours=1)


class ClocksApart(WorkError):
    """This machine's clock is {apart} {which} the server's, so nobody can say what is old enough to be removed."""


def server_now(connection: AnyConnection) -> datetime:
    """Now, aware, by the server's clock: the same for all machines that work on its databases."""
    row = connection.execute("select clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


def agreed_now(connection: AnyConnection) -> datetime:
    """Now, aware, by the server's clock. Raises ``ClocksApart`` where this machine's is ``MOST_APART`` away from it."""
    ours, theirs = datetime.now(UTC), server_now(connection)
    if abs(ours - theirs) > MOST_APART:
        raise ClocksApart(
            apart=timedelta(seconds=round(abs(ours - theirs).total_seconds())),
            which="ahead of" if ours > theirs else "behind",
            hint="Let both machines set their clocks by NTP: chronyc tracking, or timedatectl status.",
        )
    return theirs
