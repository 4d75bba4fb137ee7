"""Document 003: indexes, batches, JSONB, the reporting view, partitions and archiving, on a million workflows.

One module, because they share the million; the pools of the document are in ``n8n_pools``.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from psycopg import sql

from benchmarks.archive.shared import proof_of_now
from benchmarks.claims.ground import Connection, Ground, filling, multiply
from benchmarks.claims.measuring import Way, compared, hidden, milliseconds, query, together
from benchmarks.claims.registry import Case, Measured, Sides, claim, less, more, once
from benchmarks.patterns.patterns import in_one_batch, row_by_row
from dbplatform.archiving.apply import apply_archive
from dbplatform.archiving.pace import BRISK
from dbplatform.postgres.connection import Target, connect
from dbplatform.storage.folder import FolderPlace

SYSTEM = "n8n_scraper"
#: The same system with a tenth of the workflows.
TENTH = "n8n_scraper_tenth"
_BESIDE = "n8n_scraper_beside"
#: So many workflows has the seed, and their numbers are below this.
_SEEDED, _NUMBERS = 3000, 1_000_000
_FIRST_INDEXES = ("idx_workflows_extraction_status", "idx_workflows_created_at", "idx_node_contexts_workflow_id")
#: A copy is published a minute earlier than the one before it.
_CREATED: Final = "s.{} - copy * interval '61 seconds'"
_WORKFLOW: Final = "(s.workflow_id::bigint + 1000000 * copy)::text"
_SEED_ONLY: Final = "s.workflow_id::bigint < 1000000"


def grow(ground: Ground) -> None:
    """A tenth of the workflows, a copy of the database with them, and the rest."""
    copies = max(1, round(ground.rows / _SEEDED))
    tenth = max(1, copies // 10)
    with ground.session(SYSTEM) as connection:
        _multiplied(connection, range(1, tenth))
    ground.tidy(SYSTEM)
    ground.copy(SYSTEM, TENTH)
    with ground.session(SYSTEM) as connection:
        _multiplied(connection, range(tenth, copies + 1 if copies * _SEEDED < ground.rows else copies))


def _multiplied(connection: Connection, copies: range) -> None:
    """More workflows, with their search vectors, contexts and texts."""
    child: Mapping[str, str | None] = {
        "id": None,
        "workflow_id": _WORKFLOW,
        "workflow_created_at": _CREATED.format("workflow_created_at"),
    }
    with filling(connection, ("workflows", "workflow_node_contexts", "workflow_standalone_docs")):
        multiply(
            connection,
            "workflows",
            copies,
            {
                "workflow_id": _WORKFLOW,
                "url": f"'https://n8n.io/workflows/' || {_WORKFLOW} || '/'",
                "created_at": _CREATED.format("created_at"),
            },
            where=_SEED_ONLY,
        )
        multiply(connection, "workflow_node_contexts", copies, child, where=_SEED_ONLY)
        multiply(connection, "workflow_standalone_docs", copies, {**child, "doc_id": None}, where=_SEED_ONLY)


def _one(connection: Connection, statement: str) -> Any:
    row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def _some_workflow(connection: Connection) -> str:
    return str(_one(connection, "select max(workflow_id) from workflow_node_contexts"))


@claim(SYSTEM, "with the three critical indexes simple queries take 50 to 80 % less time")
def simple_queries(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    with ground.session(SYSTEM) as connection:
        ways = {
            "the contexts of a workflow": query(
                "select node_id, context from workflow_node_contexts where workflow_id = %s", _some_workflow(connection)
            ),
            "the workflows of a day": query(
                "select workflow_id, title from workflows"
                " where created_at >= now() - interval '100 days' and created_at < now() - interval '99 days'"
            ),
            "how many wait for a layer": query(
                "select count(*) from workflows where not unified_extraction_success and not layer2_scraped"
                " and not layer3_scraped"
            ),
            "a hundred that wait": query(
                "select workflow_id from workflows where unified_extraction_success = false"
                " and layer2_scraped = false and layer3_scraped = false limit 100"
            ),
        }
        found = compared(connection, ways, rounds=ground.rounds, without=_FIRST_INDEXES)
    return _all_and_each(found, "all four queries, one after the other", share=0.5)


@claim(SYSTEM, "complex queries take 70 to 90 % less time")
def complex_queries(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    indexes = (*_FIRST_INDEXES, "idx_standalone_docs_workflow_id", "idx_extraction_snapshots_workflow_id")
    ways = {
        "the nodes of a week's workflows": query(
            "select c.node_type, count(*), count(distinct w.workflow_id) from workflows w"
            " join workflow_node_contexts c on c.workflow_id = w.workflow_id"
            " where w.created_at >= now() - interval '107 days' and w.created_at < now() - interval '100 days'"
            " group by c.node_type order by 2 desc"
        ),
        "the newest hundred with their contexts": query(
            "select w.workflow_id, count(c.id) from"
            " (select workflow_id from workflows where unified_extraction_success order by created_at desc limit 100) w"
            " left join workflow_node_contexts c on c.workflow_id = w.workflow_id group by 1"
        ),
        "all nodes by type": query("select node_type, count(*) from workflow_node_contexts group by 1"),
    }
    with ground.session(SYSTEM) as connection:
        found = compared(connection, ways, rounds=min(3, ground.rounds), without=indexes)
    return _all_and_each(found, "all three queries, one after the other", share=0.7)


@claim(SYSTEM, "JSONB queries take 70 % less time with GIN indexes")
def jsonb_queries(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    contained = "select workflow_id from workflows where metadata @> jsonb_build_object(%s::text, %s::{})"
    with ground.session(SYSTEM) as connection:
        rare = _one(
            connection,
            "select metadata ->> 'description' from (select metadata from workflows limit 200000) w"
            " group by 1 order by count(*), 1 limit 1",
        )
        ways = {
            "a rare value": query(contained.format("text"), "description", rare),
            "a value that a third of the rows have": query(contained.format("text"), "complexity", "simple"),
            "the value taken out by ->> and compared": query(
                "select workflow_id from workflows where metadata ->> 'description' = %s", rare
            ),
            "the place of a node, which many share": query(
                "select count(*) from workflow_node_contexts where node_position @> '[880]'"
            ),
        }
        found = compared(
            connection,
            ways,
            rounds=ground.rounds,
            without=("idx_workflows_metadata_gin", "idx_node_contexts_position_gin"),
        )
    return Measured(
        cases=[less(name, sides, share=0.7) for name, sides in found.items()],
        because="the index serves @> and not ->>",
    )


@claim(SYSTEM, "upserts in batches are 3 times as fast")
def batch_upsert(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    ways = {
        "row by row": row_by_row,
        "upsert_rows, 5,000 rows": in_one_batch,
        "the document's one INSERT of 5,000 rows": _many_values,
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    with ground.session(SYSTEM) as connection:
        for number in range(min(3, ground.rounds)):
            for name in sorted(ways, reverse=number % 2 == 1):
                with hidden(connection, ()):
                    times[name].append(milliseconds(connection, ways[name]))
    before = times.pop("row by row")
    return Measured(
        cases=[_faster(name, Sides(before=before, after=after), times=3) for name, after in times.items()],
        because="before: 5,000 statements in one transaction, without a network between",
    )


def _many_values(connection: Connection) -> object:
    """The document's way: every row a list of values in one statement."""
    rows = connection.execute(
        "select workflow_id, created_at, url, views + 1 from workflows order by workflow_id limit 5000"
    ).fetchall()
    listed = ", ".join(["(%s, %s, %s, %s)"] * len(rows))
    return connection.execute(
        f"insert into workflows (workflow_id, created_at, url, views) values {listed}"  # noqa: S608
        " on conflict (workflow_id, created_at) do update set views = excluded.views".encode(),
        [value for row in rows for value in row],
    )


@claim(SYSTEM, "reports by the analytics view take 80 % less time")
def reporting_view(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    by_hand = """
        select w.workflow_id, w.title, w.unified_extraction_success, count(c.id) contexts, count(d.id) docs
        from workflows w
        left join workflow_node_contexts c on w.workflow_id = c.workflow_id
        left join workflow_standalone_docs d on w.workflow_id = d.workflow_id
        {} group by w.workflow_id, w.title, w.unified_extraction_success
    """
    view = "create view documented as " + by_hand.format("")
    hundred = "select workflow_id from workflows order by created_at desc limit 100"
    summary_of = "select * from workflow_extraction_summary where workflow_id in ({})"
    with ground.session(TENTH) as connection:
        connection.execute(view.encode())
        rounds = min(3, ground.rounds)
        same = compared(
            connection, {"": query(by_hand.format(""))}, {"": query("select * from documented")}, rounds=rounds
        )[""]
        whole = compared(
            connection,
            {"": query(by_hand.format(""))},
            {"": query("select * from workflow_extraction_summary")},
            rounds=rounds,
        )[""]
        few = compared(
            connection,
            {"": query(by_hand.format(f"where w.workflow_id in ({hundred})"))},
            {"": query(summary_of.format(hundred))},
            rounds=ground.rounds,
        )[""]
        connection.execute("drop view documented")
    return Measured(
        cases=[
            less("the document's view beside its own query", same, share=0.8),
            less("the view as it is here beside that query, all workflows", whole, share=0.8),
            less("the same for a hundred workflows", few, share=0.8),
        ],
        because="a view stores nothing, it is its query; on a tenth of the workflows",
    )


@claim(SYSTEM, "with partitions queries on large data take 60 % less time")
def partitioned_queries(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    with ground.session(SYSTEM) as connection:
        for statement in (
            "create table workflows_plain (like workflows including defaults)",
            "insert into workflows_plain select * from workflows",
            "alter table workflows_plain add primary key (workflow_id)",
            "create index on workflows_plain (created_at)",
            "vacuum (analyze) workflows_plain",
        ):
            connection.execute(statement.encode())
        one = _some_workflow(connection)
        queries: dict[str, tuple[str, ...]] = {
            "a whole year": (
                "select author, sum(views) from {} where created_at >= date_trunc('year', now(), 'UTC')"
                " and created_at < date_trunc('year', now(), 'UTC') + interval '1 year' group by 1",
            ),
            "a week": (
                "select avg(views) from {} where created_at >= now() - interval '107 days'"
                " and created_at < now() - interval '100 days'",
            ),
            "all of it": ("select author, sum(views) from {} group by 1",),
            "the newest hundred": ("select workflow_id, title from {} order by created_at desc limit 100",),
            "one workflow by its number": ("select title from {} where workflow_id = %s", one),
        }
        before, after = (
            {name: query(text.format(table), *values) for name, (text, *values) in queries.items()}
            for table in ("workflows_plain", "workflows")
        )
        found = compared(connection, before, after, rounds=min(3, ground.rounds))
        connection.execute("drop table workflows_plain")
    return Measured(
        cases=[less(name, sides, share=0.6) for name, sides in found.items()],
        because="both sides have the index on the time, a year here holds most of the rows, and what partitions save is"
        " the deleting of a year",
    )


@claim(SYSTEM, "it supports 10 times as many workflows")
def ten_times_workflows(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    with ground.session(TENTH) as small, ground.session(SYSTEM) as large:
        text = _one(small, "select metadata ->> 'description' from workflows order by workflow_id limit 1")
        words = "article message"
        ways: dict[str, Way] = {
            "the contexts of a workflow": query(
                "select node_id, context from workflow_node_contexts where workflow_id = %s", _some_workflow(small)
            ),
            "a hundred that wait for a layer": query(
                "select workflow_id from workflows where unified_extraction_success = false"
                " and layer2_scraped = false and layer3_scraped = false limit 100"
            ),
            "twenty by full-text search": query(
                "select workflow_id from workflows where search_vector @@ websearch_to_tsquery('english', %s) limit 20",
                words,
            ),
            "all that have a description": query(
                "select workflow_id from workflows where metadata @> jsonb_build_object('description', %s::text)",
                text,
            ),
        }
        times: dict[str, dict[str, list[float]]] = {name: {"before": [], "after": []} for name in ways}
        for _ in range(ground.rounds):
            for side, connection in (("before", small), ("after", large)):
                for name, way in ways.items():
                    times[name][side].append(milliseconds(connection, way))
    return Measured(
        cases=[_no_slower(name, Sides(**both)) for name, both in times.items()],
        because="at most twice the time with ten times the workflows; ten times the rows take their time",
    )


@claim(SYSTEM, "archiving makes the active table 50 % smaller")
def archived_table(ground: Ground) -> Measured:
    sizes = ground.once("archived", lambda: _archived(ground))
    rows = sizes["rows"]
    return Measured(
        cases=[
            less("bytes after VACUUM", once(sizes["active"], sizes["vacuumed"]), share=0.5, unit="MB"),
            less("bytes after VACUUM FULL", once(sizes["active"], sizes["rewritten"]), share=0.5, unit="MB"),
        ],
        because=f"{rows:.0f} % of a year and a half of made-up workflows are older than a year and complete; and a"
        " delete alone gives no room back to the disk",
    )


@claim(SYSTEM, "storage becomes 50 % more efficient")
def storage(ground: Ground) -> Measured:
    sizes = ground.once("archived", lambda: _archived(ground))
    files = sizes["all_rewritten"] + sizes["files"]
    return Measured(
        cases=[
            less("all tables and the files of the archive", once(sizes["all"], files), share=0.5, unit="MB"),
            less(
                "all tables and the document's archive, a table beside",
                once(sizes["all"], sizes["beside"]),
                share=0.5,
                unit="MB",
            ),
        ],
        because=f"what leaves, {sizes['left']:.0f} MB of rows and indexes, takes {sizes['files']:.1f} MB in files",
    )


def _archived(ground: Ground) -> dict[str, float]:
    """Old workflows of a tenth leave by the declared archive, and of a copy by the document's function: megabytes."""
    declared = ground.grown(SYSTEM, grow)
    policy = next(one for one in declared.database.archives if one.name == "old_workflows")
    tables = ("workflows", "workflow_node_contexts", "workflow_standalone_docs", "workflow_extraction_snapshots")
    ground.copy(TENTH, _BESIDE)
    with ground.session(_BESIDE) as connection:
        connection.execute("select archive_old_workflows()")
        beside = _rewritten(connection, *tables, "workflows_archive")
    with ground.session(TENTH) as connection:
        rows = _one(connection, "select count(*) from workflows")
        sizes = {
            "active": _megabytes(connection, "workflows"),
            "all": _megabytes(connection, *tables),
            "beside": beside,
        }
        proof = proof_of_now(connection)
        with (
            tempfile.TemporaryDirectory(dir=ground.home.root) as folder,
            connect(Target(TENTH, ground.url(TENTH)), work="bench") as session,
        ):
            report = apply_archive(
                session,
                policy,
                ground.platform.ledger,
                FolderPlace(Path(folder)),
                database=TENTH,
                proof=proof,
                recheck=lambda: proof,
                now=datetime.now(UTC),
                throttle=BRISK,
            )
            written = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
        sizes |= {"files": written / 2**20, "rows": report.deleted / rows * 100}
        connection.execute("vacuum")
        sizes["vacuumed"] = _megabytes(connection, "workflows")
        sizes["all_rewritten"] = _rewritten(connection, *tables)
        sizes["rewritten"] = _megabytes(connection, "workflows")
    sizes["left"] = sizes["all"] - sizes["all_rewritten"]
    return sizes


def _rewritten(connection: Connection, *tables: str) -> float:
    """Megabytes of tables when nothing in them is free."""
    for table in tables:
        connection.execute(sql.SQL("vacuum (full, analyze) {}").format(sql.Identifier(table)))
    return _megabytes(connection, *tables)


def _megabytes(connection: Connection, *tables: str) -> float:
    """Of tables with all their parts and indexes."""
    row = connection.execute(
        "select sum(pg_total_relation_size(part))::float8 / 1024 / 1024 from unnest(%s::text[]) name, lateral"
        " (select name::regclass as part union select relid from pg_partition_tree(name::regclass)) parts",
        (list(tables),),
    ).fetchone()
    assert row is not None
    return float(row[0])


@claim(SYSTEM, "twice as many operations at the same time")
def concurrent_operations(ground: Ground) -> Measured:
    ground.grown(SYSTEM, grow)
    rates: dict[str, list[float]] = {"before": [], "after": []}
    with ground.session(TENTH) as connection:
        ids = [
            row[0]
            for row in connection.execute(
                "select workflow_id from workflow_node_contexts tablesample system (1) limit 500"
            ).fetchall()
        ] or [_some_workflow(connection)]
        for number in range(min(3, ground.rounds)):
            for side in ("before", "after") if number % 2 == 0 else ("after", "before"):
                if side == "before":
                    with filling(connection, ("workflow_node_contexts",)):
                        rates[side].append(_operations(ground, ids))
                else:
                    rates[side].append(_operations(ground, ids))
    return Measured(
        cases=[
            more(
                "8 callers, reading and adding contexts of a workflow in turns",
                Sides(**rates),
                times=2,
                unit="a second",
            )
        ],
        because="by the indexes of the table of contexts, on a tenth of the workflows",
    )


def _operations(ground: Ground, ids: list[str]) -> float:
    """Operations per second of eight sessions."""
    ends, seconds = threading.Event(), min(ground.seconds, 3)

    def work(number: int) -> int:
        done = 0
        with ground.session(TENTH) as session:
            while not ends.is_set():
                one = ids[(done * 8 + number) % len(ids)]
                session.execute("select node_id, context from workflow_node_contexts where workflow_id = %s", (one,))
                session.execute(
                    "insert into workflow_node_contexts (workflow_id, workflow_created_at, node_id, node_type)"
                    " select workflow_id, created_at, 'set-9', 'n8n-nodes-base.set' from workflows"
                    " where workflow_id = %s",
                    (one,),
                )
                done += 2
        return done

    with ThreadPoolExecutor(8) as threads:
        working = [threads.submit(work, number) for number in range(8)]
        ends.wait(seconds)
        ends.set()
        return sum(one.result() for one in working) / seconds


def _no_slower(name: str, sides: Sides) -> Case:
    ratio = sides.ratio or 1.0
    before, after = sides.medians
    return Case(
        name=name, before=before, after=after, unit="ms", ratio=ratio, holds=ratio >= 0.5,
        words=f"{name}, {1 / ratio:.1f} times the time",
    )  # fmt: skip


def _faster(name: str, sides: Sides, *, times: float) -> Case:
    before, after = sides.medians
    ratio = sides.ratio or 0.0
    return Case(
        name=name, before=before, after=after, unit="ms", ratio=ratio, holds=ratio >= times,
        words=f"{name}, {ratio:.1f} times",
    )  # fmt: skip


def _all_and_each(found: Mapping[str, Sides], name: str, *, share: float) -> Measured:
    return Measured(
        cases=[
            less(name, together(found), share=share),
            *(less(each, sides, share=share) for each, sides in found.items()),
        ]
    )
