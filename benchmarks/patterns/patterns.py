"""The patterns of docs/how-to/query-patterns.md on the declared databases: before, after, and what has to be there.

Each side is one statement, or a function where the way of asking is the point. Sizes are small: the year of flights
(336,776 rows), and 30,000 workflows made of the 3,000 of the staging seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import psycopg

from dbplatform.seeding.bulk import upsert_rows

Connection = psycopg.Connection[Any]


@dataclass(frozen=True, kw_only=True)
class Side:
    """One way: a statement with its values, or a function; ``plan`` is the statement whose plan is shown."""

    sql: str = ""
    values: Sequence[Any] = ()
    run: Callable[[Connection], object] | None = None
    words: str = ""

    def __call__(self, connection: Connection) -> None:
        if self.run is not None:
            self.run(connection)
        else:
            connection.execute(self.sql.encode(), self.values or None).fetchall()


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """A pattern with its two sides. ``setup`` runs once before, ``undo`` behind."""

    name: str
    database: str
    before: Side
    after: Side
    setup: tuple[str, ...] = ()
    undo: tuple[str, ...] = ()
    same: bool = True
    """Both give the same rows."""
    sizes: dict[str, str] = field(default_factory=dict)
    """What takes room, by its name: a statement that gives its bytes."""


def _planes(connection: Connection) -> list[str]:
    rows = connection.execute("select tailnum from planes order by tailnum limit 500").fetchall()
    return [row[0] for row in rows]


def one_by_one(connection: Connection) -> object:
    """A lookup for each row of the list before: what a loop over objects does."""
    return [
        connection.execute("select tailnum, model, seats from planes where tailnum = %s", (one,)).fetchone()
        for one in _planes(connection)
    ]


def all_at_once(connection: Connection) -> object:
    return connection.execute(
        "select tailnum, model, seats from planes where tailnum = any(%s)", (_planes(connection),)
    ).fetchall()


def _batch(connection: Connection) -> list[tuple[Any, ...]]:
    return connection.execute(
        "select workflow_id, created_at, url, views + 1 from workflows order by workflow_id limit 5000"
    ).fetchall()


_UPSERT = (
    "insert into workflows (workflow_id, created_at, url, views) values (%s, %s, %s, %s)"
    " on conflict (workflow_id, created_at) do update set views = excluded.views"
)


def row_by_row(connection: Connection) -> object:
    rows = _batch(connection)
    with connection.transaction():
        for row in rows:
            connection.execute(_UPSERT, row)
    return len(rows)


def in_one_batch(connection: Connection) -> object:
    rows = _batch(connection)
    return upsert_rows(connection, "public.workflows", rows, columns=["workflow_id", "created_at", "url", "views"])


_FLIGHT = "time_hour, carrier, flight, origin"
_PAGE = f"select {_FLIGHT}, dest, dep_delay from flights"  # noqa: S608


def patterns(
    boundary: tuple[datetime, str, int, str], in_list: Sequence[str], metadata: tuple[int, str]
) -> list[Pattern]:
    """All of them; ``boundary`` is the key of the flight before page 4,001, ``in_list`` are 2,000 tail numbers, and
    ``metadata`` nodes and complexity of the fewest workflows."""
    literals = ", ".join(f"'{one}'" for one in in_list)
    return [
        Pattern(
            name="Keyset pagination",
            database="flights",
            setup=(f"create index pattern_page on flights ({_FLIGHT})",),
            undo=("drop index pattern_page",),
            before=Side(sql=f"{_PAGE} order by {_FLIGHT} limit 50 offset 200000"),
            after=Side(
                sql=f"{_PAGE} where ({_FLIGHT}) > (%s, %s, %s, %s) order by {_FLIGHT} limit 50", values=boundary
            ),
        ),
        Pattern(
            name="No call for each row (N+1)",
            database="flights",
            before=Side(run=one_by_one, words="500 calls: select ... from planes where tailnum = $1"),
            after=Side(run=all_at_once, words="1 call: select ... from planes where tailnum = any($1)"),
        ),
        Pattern(
            name="Only the columns that are needed",
            database="n8n_scraper",
            before=Side(sql="select * from workflows where layer2_scraped order by workflow_id limit 2000"),
            after=Side(
                sql="select workflow_id, title, views from workflows where layer2_scraped"
                " order by workflow_id limit 2000"
            ),
            same=False,
        ),
        Pattern(
            name="Batch upsert",
            database="n8n_scraper",
            before=Side(run=row_by_row, words="5,000 times insert ... on conflict do update, one transaction"),
            after=Side(run=in_one_batch, words="upsert_rows(connection, 'public.workflows', rows)"),
            same=False,
        ),
        Pattern(
            name="JSONB containment by GIN",
            database="n8n_scraper",
            before=Side(
                sql="select workflow_id from workflows where (metadata ->> 'nodes')::int = %s"
                " and metadata ->> 'complexity' = %s",
                values=metadata,
            ),
            after=Side(
                sql="select workflow_id from workflows where metadata @> jsonb_build_object('nodes', %s::int,"
                " 'complexity', %s::text)",
                values=metadata,
            ),
        ),
        Pattern(
            name="Full-text search",
            database="n8n_scraper",
            before=Side(
                sql="select workflow_id from workflows where title ilike %s or metadata ->> 'description' ilike %s",
                values=("%postgresql%", "%postgresql%"),
            ),
            after=Side(
                sql="select workflow_id from workflows where search_vector @@ websearch_to_tsquery('english', %s)",
                values=("postgresql",),
            ),
        ),
        Pattern(
            name="Partial index",
            database="flights",
            setup=(
                "create index pattern_whole on flights (dep_time, time_hour)",
                "create index pattern_part on flights (time_hour) where dep_time is null",
            ),
            undo=("drop index pattern_whole, pattern_part",),
            before=Side(
                sql="select count(*) from flights where dep_time is null and extract(dow from time_hour) = 6",
                words="without an index for it",
            ),
            after=Side(
                sql="select count(*) from flights where dep_time is null and extract(dow from time_hour) = 6",
                words="with (time_hour) where dep_time is null",
            ),
            sizes={"index over all rows": "pattern_whole", "partial index": "pattern_part"},
        ),
        Pattern(
            name="Covering index",
            database="flights",
            setup=(
                "create index pattern_plain on flights (carrier, time_hour)",
                "create index pattern_cover on flights (carrier, time_hour) include (dep_delay)",
            ),
            undo=("drop index pattern_plain, pattern_cover",),
            before=Side(sql="select avg(dep_delay) from flights where carrier = 'UA'", words="(carrier, time_hour)"),
            after=Side(
                sql="select avg(dep_delay) from flights where carrier = 'UA'",
                words="(carrier, time_hour) include (dep_delay)",
            ),
        ),
        Pattern(
            name="A list as one array",
            database="flights",
            before=Side(
                sql=f"select carrier, flight, time_hour from flights where tailnum in ({literals})"  # noqa: S608
                " and time_hour >= now() - interval '40 days'"
            ),
            after=Side(
                sql="select f.carrier, f.flight, f.time_hour from unnest(%s::text[]) as wanted (tailnum)"
                " join flights f using (tailnum) where f.time_hour >= now() - interval '40 days'",
                values=(list(in_list),),
            ),
        ),
        Pattern(
            name="The newest of each group (LATERAL)",
            database="flights",
            setup=("create index pattern_newest on flights (carrier, time_hour desc)",),
            undo=("drop index pattern_newest",),
            before=Side(
                sql="select carrier, time_hour from (select carrier, time_hour, row_number() over"
                " (partition by carrier order by time_hour desc) as place from flights) f where place <= 3"
            ),
            after=Side(
                sql="select a.carrier, f.time_hour from airlines a cross join lateral (select time_hour from flights f"
                " where f.carrier = a.carrier order by time_hour desc limit 3) f"
            ),
        ),
        Pattern(
            name="How many, about",
            database="flights",
            before=Side(sql="select count(*) from flights"),
            after=Side(
                sql="select sum(greatest(reltuples, 0))::bigint from pg_class"
                " where oid in (select relid from pg_partition_tree('flights') where isleaf)"
            ),
        ),
    ]
