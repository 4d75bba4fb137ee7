"""How long events are kept: the service lets old ones go while it follows, and a clean-up where no service runs."""

from __future__ import annotations

from typing import Final

from dbplatform.postgres.connection import AutocommitConnection

#: An interval of PostgreSQL.
KEPT: Final = "1 hour"
#: What is older goes; a token from before is answered by a reset.
PRUNE: Final = """
    with horizon as (
        select xid, (xid::text::numeric + 1)::text::xid8 as behind from dbplatform.live_event
        where at < now() - %s::interval and xid < pg_snapshot_xmin(pg_current_snapshot())
        order by xid desc limit 1
    ),
    marked as (
        update dbplatform.live_feed f set pruned_before = greatest(f.pruned_before, h.behind) from horizon h returning 1
    )
    delete from dbplatform.live_event e using horizon h where e.xid < h.behind and exists (select from marked)
"""
_OLD: Final = "select count(*) from dbplatform.live_event where at < now() - %s::interval"


def count_old(connection: AutocommitConnection) -> int:
    """How many events are older than ``KEPT``; none where no table is live."""
    there = connection.execute("select to_regclass('dbplatform.live_event') is not null").fetchone()
    row = connection.execute(_OLD.encode(), (KEPT,)).fetchone() if there == (True,) else None
    return int(row[0]) if row else 0


def forget_old(connection: AutocommitConnection) -> int:
    """Let go of them; how many. A token of before is answered by a reset from then on."""
    return connection.execute(PRUNE.encode(), (KEPT,)).rowcount
