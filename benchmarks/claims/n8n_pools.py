"""Document 003: what it says of connections, and of data that may not come in."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

import psycopg

from benchmarks.claims.ground import Connection, Ground
from benchmarks.claims.measuring import held_at_once, query, throughput
from benchmarks.claims.registry import Measured, Sides, claim, less, more, once
from dbplatform.postgres.connection import Target
from dbplatform.postgres.pools import DatabasePool, PoolSettings, pool_settings

SYSTEM = "n8n_scraper"
#: What SQLAlchemy gives to whoever says nothing of a pool.
DEFAULT = PoolSettings(size=5, max_overflow=10, timeout_s=30, idle_s=60, pre_ping=False)
_ONE = "select workflow_id, title from workflows order by created_at desc limit 1"
#: The document's versions before foreign keys (V5) and before validation (V9).
_EARLY = "4"


@claim(SYSTEM, "foreign keys make references right in every case, and leave no orphan")
def referential_integrity(ground: Ground) -> Measured:
    ground.small(SYSTEM)
    orphans = min(1000, ground.rows)
    accepted = {}
    for name, columns in ((ground.beside(SYSTEM, _EARLY), ""), (SYSTEM, ", workflow_created_at")):
        with ground.session(name) as connection, connection.transaction(force_rollback=True):
            values = ", now()" if columns else ""
            statement = (
                f"insert into workflow_node_contexts (workflow_id, node_id, node_type{columns})"  # noqa: S608
                f" values ('nobody', 'set-1', 'n8n-nodes-base.set'{values})"
            )
            accepted[name] = sum(_accepts(connection, statement) for _ in range(orphans))
    before, after = accepted.values()
    return Measured(
        cases=[less(f"orphans that came in, of {orphans:,} that were tried", once(before, after), share=1, unit="rows")]
    )


@claim(SYSTEM, "validation lets 95 % fewer bad rows in")
def data_validation(ground: Ground) -> Measured:
    ground.small(SYSTEM)
    let_in: dict[str, list[str]] = {}
    for name, late in ((ground.beside(SYSTEM, _EARLY), False), (SYSTEM, True)):
        with ground.session(name) as connection, connection.transaction(force_rollback=True):
            let_in[name] = [what for what, statement in _bad(late=late).items() if _accepts(connection, statement)]
    before, after = let_in.values()
    return Measured(
        cases=[
            less(
                f"kinds of bad rows that come in, of {len(_bad(late=True))}",
                once(len(before), len(after)),
                share=0.95,
                unit="kinds",
            )
        ],
        because=f"left to the declared checks, which tell of them afterwards: {', '.join(after)}",
    )


def _bad(*, late: bool) -> Mapping[str, str]:
    """A row of each kind that the schema or the declared checks call wrong, by what is wrong with it."""
    key, value = (", workflow_created_at", ", created_at") if late else ("", "")
    workflow = (
        "insert into workflows (workflow_id, title, url{}) values ('bad', 'A title', 'https://n8n.io/workflows/1/'{})"
    )
    child = (
        f"insert into {{}} (workflow_id{key}, {{}}) select workflow_id{value}, {{}} from workflows"  # noqa: S608
        " order by workflow_id limit 1"
    )
    if not late:
        # The early database is empty: its children refer to nothing, which is no other mistake there.
        child = "insert into {} (workflow_id, {}) select 'known', {}"
    contexts = "workflow_node_contexts"
    return {
        "an address that is none": "insert into workflows (workflow_id, title, url) values ('bad', 'A title', 'n8n')",
        "fewer than no views": workflow.format(", views", ", -1"),
        "success without its layers": workflow.format(", unified_extraction_success", ", true"),
        "a node that is nowhere": child.format(
            contexts, "node_id, node_type, node_position", "'set-1', 'n8n-nodes-base.set', '[1]'::jsonb"
        ),
        "a node without a name": child.format(contexts, "node_id, node_type", "null, 'n8n-nodes-base.set'"),
        "a context of no workflow": f"insert into {contexts} (workflow_id{key}, node_id, node_type)"  # noqa: S608
        f" values ('nobody'{', now()' if late else ''}, 'set-1', 'n8n-nodes-base.set')",
        "a negative duration": child.format(
            "workflow_extraction_snapshots", "layer, succeeded, duration_ms, payload", "1, true, -1, '{}'::jsonb"
        ),
        "no title": "insert into workflows (workflow_id, url) values ('bad', 'https://n8n.io/workflows/1/')",
        "no address": "insert into workflows (workflow_id, title) values ('bad', 'A title')",
        "views beyond belief": workflow.format(", views", ", 99999999"),
        "a text of three letters": child.format("workflow_standalone_docs", "content", "'abc'"),
        "a workflow that is there twice": "insert into workflows (workflow_id, title, url, created_at) values"
        " ('twice', 'A title', 'https://n8n.io/workflows/2/', now()),"
        " ('twice', 'A title', 'https://n8n.io/workflows/2/', now() - interval '1 day')",
    }


def _accepts(connection: Connection, statement: str) -> bool:
    """Whether the database takes it; nothing of it stays."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement.encode())
    except psycopg.IntegrityError:
        return False
    return True


@claim(SYSTEM, "a pool takes away 90 % of the overhead of connections")
def connection_overhead(ground: Ground) -> Measured:
    declared = ground.small(SYSTEM)
    url = ground.url(SYSTEM)
    policy = declared.database.connection
    settings = pool_settings(policy.environment, policy.pool)
    calls = 200 if ground.rows >= 100_000 else 20
    overheads: dict[str, list[float]] = {"before": [], "after": []}
    pool = DatabasePool(Target("bench", url), settings, work="bench")
    with ground.session(SYSTEM) as connection:
        for number in range(ground.rounds):
            bare = _each(calls, lambda: query(_ONE)(connection))
            for side in ("before", "after") if number % 2 == 0 else ("after", "before"):
                took = _each(calls, (lambda: _connected(url)) if side == "before" else (lambda: _pooled(pool)))
                overheads[side].append(max(0.001, took - bare))
    pool.close()
    return Measured(
        cases=[less("above the query itself", Sides(**overheads), share=0.9)],
        because="each connection of the pool is asked whether it lives before it is used, as declared",
    )


def _each(calls: int, way: Callable[[], object]) -> float:
    """Milliseconds of a call, the median."""
    times = []
    for _ in range(calls):
        begun = time.perf_counter()
        way()
        times.append((time.perf_counter() - begun) * 1000)
    return statistics.median(times)


def _connected(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        query(_ONE)(connection)


def _pooled(pool: DatabasePool) -> None:
    with pool.connection() as connection:
        connection.exec_driver_sql(_ONE).fetchall()


@claim(SYSTEM, "the pool of 50 + 100 is 3 times as efficient")
def pool_efficiency(ground: Ground) -> Measured:
    declared = ground.small(SYSTEM)
    policy = declared.database.connection
    pools = {"before": DEFAULT, "after": pool_settings(policy.environment, policy.pool)}
    rates: dict[str, list[float]] = {"before": [], "after": []}
    for number in range(min(3, ground.rounds)):
        for side in ("before", "after") if number % 2 == 0 else ("after", "before"):
            rates[side].append(
                throughput(
                    ground.url(SYSTEM),
                    query(_ONE),
                    clients=100,
                    settings=pools[side],
                    seconds=min(3, ground.seconds),
                )[0]
            )
    return Measured(
        cases=[more("queries of 100 callers", Sides(**rates), times=3, unit="a second")],
        because="beside SQLAlchemy's own 5 + 10; the processors do the work, not the connections",
    )


@claim(SYSTEM, "95 % fewer time-outs")
def pool_timeouts(ground: Ground) -> Measured:
    ground.small(SYSTEM)
    callers = 150
    # A fifth of a second stands for twelve: the document's 30 and 60 s of waiting, sixty times as fast.
    hold_s = 0.2
    before = PoolSettings(size=5, max_overflow=10, timeout_s=0.5, idle_s=60)
    after = PoolSettings(size=50, max_overflow=100, timeout_s=1, idle_s=60)
    refused = {
        side: held_at_once(ground.url(SYSTEM), callers=callers, settings=settings, hold_s=hold_s)[1]
        for side, settings in (("before", before), ("after", after))
    }
    ground.restart(max_connections="100")
    full = held_at_once(ground.url(SYSTEM), callers=callers, settings=after, hold_s=max(hold_s, 3))[1]
    ground.restart()
    sides = once(refused["before"], refused["after"])
    return Measured(
        cases=[
            less("150 callers at once, on a server of 200 connections", sides, share=0.95, unit="refused"),
            less(
                "on one of 100, which is PostgreSQL's default",
                once(refused["before"], full),
                share=0.95,
                unit="refused",
            ),
        ],
        because="what the pool no longer refuses the server does",
    )
