"""Failing rows leave the ledger when they are old; the results, with their exact numbers, stay.

What is kept however old it is: the rows of the newest run of each declared check. What nobody has reviewed is kept
longer, but not for ever: a ledger must not grow because nobody reads reports.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from dbplatform import progress
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection, connect
from dbplatform.quality.policy import FailedRowsPolicy

ROWS_PER_BATCH = 10_000
ROWS_PER_CALL = 1_000_000
"""One call removes at most so many: a run must not wait for years of rows."""

_DUE = """
    select r.id
    from ledger.quality_result r
    join ledger.quality_run q using (run_id)
    where q.database = %(database)s and r.kept_rows > 0
      and q.started_at < case when q.verdict is distinct from 'passed'
                                   and (%(unreviewed)s::text[] is null or q.run_id = any(%(unreviewed)s))
                              then %(unreviewed_before)s else %(before)s end
      and not (
          (r.table_name, r.name) in (select * from unnest(%(tables)s::text[], %(names)s::text[]))
          and not exists (
              select from ledger.quality_result n join ledger.quality_run m using (run_id)
              where m.database = q.database and n.table_name = r.table_name and n.name = r.name
                and (m.started_at, m.run_id) > (q.started_at, q.run_id)
          )
      )
    order by q.started_at, r.id
"""
# The first rows, which reports show, go last.
_REMOVE = """
    with due as (
        select f.result_id, f.ordinal from ledger.quality_failed_row f
        where f.result_id = %(id)s order by f.ordinal desc limit %(rows)s
    ), gone as (
        delete from ledger.quality_failed_row f using due
        where (f.result_id, f.ordinal) = (due.result_id, due.ordinal) returning 1
    )
    update ledger.quality_result
    set kept_rows = kept_rows - (select count(*) from gone), rows_removed_at = now()
    where id = %(id)s
    returning (select count(*) from gone)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What one call has removed, and whether it stopped at its bound."""

    results: int
    rows: int
    more: bool


def remove_old_rows(
    ledger: Ledger,
    database: str,
    policy: FailedRowsPolicy,
    *,
    checks: Collection[tuple[str, str]],
    now: datetime,
    unreviewed: Collection[str] | None = None,
    at_most: int = ROWS_PER_CALL,
) -> Removed:
    """Remove the failing rows of a database that are older than is declared at ``now`` (aware).

    ``checks`` are the tables (``schema.table``) and names of those that are declared; ``unreviewed`` the runs whose
    failing reports nobody has reviewed, none: all failing ones. A transaction per 10,000 rows, ROW EXCLUSIVE on two
    tables of the ledger; killed anywhere, the next call goes on. Two at once do not wait for each other.
    """
    before = now - policy.retain.relativedelta
    parameters = {
        "database": database,
        "before": before,
        "unreviewed_before": min(before, now - policy.retain_unreviewed.relativedelta),
        "unreviewed": None if unreviewed is None else list(unreviewed),
        "tables": [table for table, _ in checks],
        "names": [name for _, name in checks],
    }
    results = rows = 0
    with connect(ledger.target, work="failed rows") as connection:
        due = [id_ for (id_,) in connection.execute(_DUE, parameters).fetchall()]
        for id_ in due:
            while rows < at_most and (batch := _batch(connection, id_, min(ROWS_PER_BATCH, at_most - rows))):
                rows += batch
                progress.report("remove old failing rows", done=rows, unit="rows")
            if rows >= at_most:
                break
            results += 1
    return Removed(results=results, rows=rows, more=results < len(due))


def _batch(connection: AutocommitConnection, result: int, rows: int) -> int:
    """Remove some rows of one result, unless somebody else is at it; how many."""
    with connection.transaction():
        mine = connection.execute(
            "select from ledger.quality_result where id = %s and kept_rows > 0 for update skip locked", (result,)
        ).fetchone()
        if mine is None:
            return 0
        gone = connection.execute(_REMOVE, {"id": result, "rows": rows}).fetchone()
        assert gone is not None
        return int(gone[0])
