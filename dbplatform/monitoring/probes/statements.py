"""What ``pg_stat_statements`` has counted, statement by statement: the largest by their time."""

from __future__ import annotations

from psycopg import sql
from psycopg.rows import dict_row

from dbplatform.monitoring.probes.collecting import MARK, Collecting, Probe
from dbplatform.monitoring.statements import MOST_COUNTED, Count, Counts
from dbplatform.monitoring.texts import without_values
from dbplatform.postgres.connection import AutocommitConnection

#: The key under which the reason stands why there are no statements.
NAME = "statements"

_LONGEST_TEXT = 4_000
_OWN = MARK.strip() + "%"

# Those that one statement calls, and those of several users, are one: the text is the same. A text that is known is not
# sent again.
_COUNTED = """
    select queryid, sum(calls)::bigint as calls, sum(total_exec_time) as ms, sum(rows)::bigint as rows,
           sum(shared_blks_hit)::bigint as hit, sum(shared_blks_read)::bigint as read,
           sum(temp_blks_written)::bigint as temp, {since} as since, i.reset, i.dealloc,
           case when queryid <> all (%(known)s) then left(min(query), %(longest)s) end as text
    from {schema}.pg_stat_statements,
         (select extract(epoch from stats_reset)::float as reset, dealloc from {schema}.pg_stat_statements_info) i
    where dbid = (select oid from pg_database where datname = current_database())
      and queryid is not null and query not like %(own)s
    group by queryid, i.reset, i.dealloc order by ms desc limit %(most)s
"""


def _measure(connection: AutocommitConnection, into: Collecting) -> None:
    facts = into.facts
    if facts.statements is None:
        into.unmeasured[NAME] = (
            "the extension pg_stat_statements is not in this database: name it in shared_preload_libraries, restart, "
            "and CREATE EXTENSION pg_stat_statements"
        )
        return
    if not facts.reads_all_stats:
        into.unmeasured[NAME] = "the user may not see the statements of others"
        return
    schema, version = facts.statements
    numbers = tuple(int(part) for part in version.split("."))
    if numbers < (1, 9):
        into.unmeasured[NAME] = f"its version is {version}: ALTER EXTENSION pg_stat_statements UPDATE"
        return
    since = "min(extract(epoch from stats_since))::float" if numbers >= (1, 11) else "null::float"
    query = sql.SQL(MARK + _COUNTED).format(schema=sql.Identifier(schema), since=sql.SQL(since))
    values = {"known": list(into.known), "own": _OWN, "longest": _LONGEST_TEXT, "most": MOST_COUNTED}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(query, values).fetchall()
    into.statements = Counts(
        at=into.now,
        reset=rows[0]["reset"] if rows else None,
        dealloc=rows[0]["dealloc"] if rows else 0,
        whole=len(rows) < MOST_COUNTED,
        counts={
            row["queryid"]: Count(
                calls=row["calls"],
                ms=row["ms"],
                rows=row["rows"],
                hit=row["hit"],
                read=row["read"],
                temp=row["temp"],
                since=row["since"],
            )
            for row in rows
        },
        texts={row["queryid"]: without_values(row["text"]) for row in rows if row["text"] is not None},
    )


STATEMENTS = Probe((NAME,), _measure)
