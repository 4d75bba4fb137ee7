"""Document 002: what it calls the size of its empty database, its cache, and what its architecture supports."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import psycopg
from psycopg import sql

from benchmarks.claims.ground import Connection, Ground, again, earlier, filling, multiply
from benchmarks.claims.measuring import milliseconds, query
from benchmarks.claims.registry import Measured, Sides, bounded, claim, once, reached

SYSTEM = "restoreassist"
POOL, TIMEOUT_S = 20, 10
_SIZE = """
    select coalesce(sum(pg_total_relation_size(c.oid)), 0)::float8 / 1024 from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relkind = 'r'
"""
_INDEX_HITS = """
    select coalesce(sum(idx_blks_hit)::float8 / nullif(sum(idx_blks_hit + idx_blks_read), 0), 0) * 100
    from pg_statio_user_indexes where schemaname = 'public'
"""
_KEYS = """
    select c.relname, a.attname from pg_index i join pg_class c on c.oid = i.indrelid
    join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[0]
    where i.indisprimary and c.relnamespace = 'public'::regnamespace
"""
_PAGE = """
    select id, report_number, title, status, created_at from reports
    where organization_id = (select min(id::text)::uuid from organizations) order by created_at desc, id limit 20
"""


def grow(ground: Ground) -> None:
    """As many reports as rows."""
    with ground.session(SYSTEM) as connection, filling(connection, ("reports",)):
        multiply(
            connection,
            "reports",
            range(1, max(1, ground.rows // 2500)),
            {
                "id": again("id"),
                "report_number": "s.report_number || '-' || copy",
                "created_at": earlier("created_at", 600),
            },
        )


@claim(SYSTEM, "the empty database takes about 200 kB")
def empty_database(ground: Ground) -> Measured:
    name = ground.beside(SYSTEM)
    with ground.session("template1") as empty, ground.session(name) as connection:
        sizes = [_number(one, _SIZE) for one in (empty, connection)]
        whole = _number(connection, "select pg_database_size(current_database())::float8 / 1024 / 1024")
    return Measured(
        cases=[bounded("20 tables without rows and their 95 indexes", once(*sizes), at_most=220, unit="kB")],
        because=f"an index without entries has one page of 8 kB; the whole database, with PostgreSQL's own catalog, is"
        f" {whole:.1f} MB",
    )


@claim(SYSTEM, "an index hit ratio of 58 % becomes one of over 90 % by more shared_buffers")
def index_hit_ratio(ground: Ground) -> Measured:
    ground.small(SYSTEM)
    found: dict[str, float] = {}
    for memory in ("128MB", "1GB"):
        ground.restart(shared_buffers=memory)
        with ground.session(SYSTEM) as connection:
            connection.execute("select pg_stat_reset()")
            _looked_up(connection, times=2)
        found[memory] = _index_hits(ground)
    with ground.session(SYSTEM) as connection:
        _looked_up(connection, times=100)
    later = _index_hits(ground)
    ground.restart()
    return Measured(
        cases=[
            reached(
                "the first reads after a start, 1 GB for 128 MB",
                once(found["128MB"], found["1GB"]),
                at_least=90,
                unit="%",
            )
        ],
        because=f"it was a ratio of a few reads of an empty cache: a hundred times as many make it {later:.1f} %, with"
        " whatever memory",
    )


@claim(SYSTEM, "with a pool of 20 connections it serves 10,000 users at the same time")
def ten_thousand_users(ground: Ground) -> Measured:
    ground.small(SYSTEM)
    users = max(200, ground.rows // 100)
    url = ground.url(SYSTEM)
    apart, pooled = [], []
    for number in range(min(ground.rounds, 2)):
        for way in ("apart", "pooled") if number % 2 == 0 else ("pooled", "apart"):
            if way == "apart":
                some = max(50, users // 20)
                apart.append(asyncio.run(_answered(url, some, pooled=False)) * users / some)
            else:
                pooled.append(asyncio.run(_answered(url, users, pooled=True)))
    sides = Sides(before=apart, after=pooled)
    before, after = sides.medians
    rates = once(users / before, users / after)
    return Measured(
        cases=[
            reached(f"{users:,} who ask once a minute", rates, at_least=users / 60, unit="pages a second"),
            bounded(f"{users:,} who ask in one moment, within the timeout of 10 s", sides, at_most=TIMEOUT_S, unit="s"),
        ],
        because="pages of 20 reports, client and server on the same 2 processors; before: a connection for each",
    )


@claim(SYSTEM, "it carries over a million reports, where partitions are to be considered")
def million_reports(ground: Ground) -> Measured:
    ground.small(SYSTEM)
    ways = {
        "a page of the newest": query(_PAGE),
        "page 1,000 by OFFSET": query(f"{_PAGE} offset 20000"),
        "reports by state and month": query(
            "select state, date_trunc('month', created_at) as month, count(*) from reports group by 1, 2"
        ),
    }
    with ground.session(SYSTEM) as connection:
        before = {name: milliseconds(connection, way) for name, way in ways.items()}
    ground.grown(SYSTEM, grow)
    with ground.session(SYSTEM) as connection:
        after = {name: [milliseconds(connection, way) for _ in range(ground.rounds)] for name, way in ways.items()}
    return Measured(
        cases=[
            bounded(name, Sides(before=[before[name]] * ground.rounds, after=after[name]), at_most=100, unit="ms")
            for name in ways
        ],
        because="within 100 ms; before: the 2,500 reports of the seed",
    )


def _number(connection: Connection, statement: str) -> float:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return float(row[0])


def _looked_up(connection: Connection, *, times: int) -> None:
    """The first row of each table by its key."""
    connection.execute("set enable_seqscan = off")
    for table, column in connection.execute(_KEYS.encode()).fetchall():
        first = sql.SQL("select {1} from {0} order by {1} limit 1").format(
            sql.Identifier(table), sql.Identifier(column)
        )
        for _ in range(times):
            connection.execute(first)


def _index_hits(ground: Ground) -> float:
    with ground.session(SYSTEM) as connection:
        return _number(connection, _INDEX_HITS)


async def _answered(url: str, users: int, *, pooled: bool) -> float:
    """Seconds until so many users who ask at once have their page, twenty at a time."""
    free: asyncio.Queue[psycopg.AsyncConnection[Any] | None] = asyncio.Queue()
    opened = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(POOL)] if pooled else []
    for one in opened or [None] * POOL:
        free.put_nowait(one)

    async def ask() -> None:
        place = await free.get()
        try:
            connection = place or await psycopg.AsyncConnection.connect(url, autocommit=True)
            rows = await (await connection.execute(_PAGE.encode())).fetchall()
            assert len(rows) == 20
            if place is None:
                await connection.close()
        finally:
            free.put_nowait(place)

    begun = time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(users)))
    took = time.perf_counter() - begun
    for one in opened:
        await one.close()
    return took
