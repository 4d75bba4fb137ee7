"""Each pattern of docs/how-to/query-patterns.md measured before and after, on the declared databases, with their plans.

    python benchmarks/patterns/run.py [--rounds 15]

Starts an embedded server of its own with the databases flights and n8n_scraper, built by their migrations and seeds,
and removes it at the end. Every round does both sides, in turns; figures are medians of milliseconds, the ratio is the
median of the ratios within the rounds. Statements are planned each time. Both sides must give the same number of rows
where they ask for the same. Prints Markdown, writes ``results.json`` and ``plans.md`` beside.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psycopg
from patterns import Connection, Pattern, Side, patterns
from psycopg import sql

HERE = Path(__file__).parent
#: 30,000 workflows of the 3,000 in the staging seed: each with an id of its own, and other numbers in its metadata.
_MORE_WORKFLOWS = """
    insert into workflows (workflow_id, title, url, author, categories, views, metadata, workflow_json, layer2_scraped,
                           layer3_scraped, unified_extraction_success, created_at, updated_at)
    select (workflow_id::bigint + 1000000 * copy)::text, title,
           'https://n8n.io/workflows/' || (workflow_id::bigint + 1000000 * copy) || '/', author, categories, views,
           metadata, workflow_json, layer2_scraped, layer3_scraped, unified_extraction_success, created_at, updated_at
    from workflows, generate_series(1, 9) as copy
"""


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=15)
    rounds = arguments.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="patterns-", dir="/var/tmp") as home, ExitStack() as stack:
        os.environ["DBPLATFORM_HOME"] = home
        os.environ.pop("DBPLATFORM_LEDGER_URL", None)
        urls = built(stack)
        with psycopg.connect(urls["flights"]) as connection:
            boundary = connection.execute(
                "select time_hour, carrier, flight, origin from flights"
                " order by time_hour, carrier, flight, origin offset 199999 limit 1"
            ).fetchone()
            listed = [row[0] for row in connection.execute("select tailnum from planes order by 1 limit 2000")]
        with psycopg.connect(urls["n8n_scraper"]) as connection:
            rare = connection.execute(
                "select (metadata ->> 'nodes')::int, metadata ->> 'complexity' from workflows where metadata ? 'nodes'"
                " group by 1, 2 order by count(*), 1 limit 1"
            ).fetchone()
        assert boundary is not None
        assert rare is not None
        results = [measured(one, urls[one.database], rounds) for one in patterns(boundary, listed, rare)]
    (HERE / "results.json").write_text(json.dumps(results, indent=1, default=str) + "\n")
    (HERE / "plans.md").write_text(plans(results))
    print("| pattern | before, ms | after, ms | times as fast |\n|---|---|---|---|")
    for one in results:
        print(f"| {one['pattern']} | {one['before_ms']:,.2f} | {one['after_ms']:,.2f} | {one['ratio']:,.1f} |")
    for one in results:
        if one["bytes"]:
            print(f"{one['pattern']}: {', '.join(f'{name} {size:,} bytes' for name, size in one['bytes'].items())}")


def built(stack: ExitStack) -> dict[str, str]:
    """Both databases, from their migrations and seeds; the server goes with the stack."""
    from dbplatform.declaration.project import Project
    from dbplatform.operations import partitions, schema, seeds
    from dbplatform.operations.platform import Platform

    platform = Platform(Project.at(HERE.parents[1]))
    stack.callback(platform.server.remove)
    for name, profile in (("flights", "dev"), ("n8n_scraper", "staging")):
        declared = platform.declarations.get(name)
        schema.apply(platform, declared)
        partitions.apply(platform, declared)
        seeds.apply(platform, declared, profile=profile)
    urls = {name: platform.server.url(name) for name in ("flights", "n8n_scraper")}
    with psycopg.connect(urls["n8n_scraper"], autocommit=True) as connection:
        connection.execute(_MORE_WORKFLOWS.encode())
    return urls


def measured(pattern: Pattern, url: str, rounds: int) -> dict[str, Any]:
    """Both sides, in turns, behind a round that is not counted; each rolled back, without the index it is not for."""
    settings = "-c timezone=UTC -c jit=off"
    with psycopg.connect(url, autocommit=True, prepare_threshold=None, options=settings) as connection:
        for statement in pattern.setup:
            connection.execute(statement.encode())
        connection.execute("vacuum (analyze)")
        sizes = {name: _bytes(connection, index) for name, index in pattern.sizes.items()}
        hidden = _hidden(pattern)
        times: dict[str, list[float]] = {"before": [], "after": []}
        rows, plan = {}, {}
        for number in range(rounds + 1):
            for side, way in (("before", pattern.before), ("after", pattern.after)):
                with connection.transaction(force_rollback=True):
                    for index in hidden[side]:
                        connection.execute(sql.SQL("drop index {}").format(sql.Identifier(index)))
                    if number == 0:
                        rows[side] = _rows(connection, way)
                        plan[side] = _plan(connection, way)
                    begin = time.perf_counter()
                    way(connection)
                    if number:
                        times[side].append((time.perf_counter() - begin) * 1000)
        for statement in pattern.undo:
            connection.execute(statement.encode())
    if pattern.same and pattern.before.sql and pattern.name != "How many, about":
        assert rows["before"] == rows["after"], (pattern.name, rows)
    ratios = [before / after for before, after in zip(times["before"], times["after"], strict=True)]
    return {
        "pattern": pattern.name, "database": pattern.database, "rounds": rounds,
        "before_ms": statistics.median(times["before"]), "after_ms": statistics.median(times["after"]),
        "ratio": statistics.median(ratios), "ratios": [round(one, 2) for one in sorted(ratios)], "rows": rows,
        "bytes": sizes,
        "before": pattern.before.words or _short(pattern.before.sql),
        "after": pattern.after.words or _short(pattern.after.sql),
        "plans": plan,
    }  # fmt: skip


def _bytes(connection: Connection, index: str) -> int:
    """Of an index with all its parts."""
    row = connection.execute("select sum(pg_relation_size(relid)) from pg_partition_tree(%s)", (index,)).fetchone()
    assert row is not None
    return int(row[0])


def _hidden(pattern: Pattern) -> dict[str, tuple[str, ...]]:
    """Which indexes a side does without: each pattern of indexes compares two."""
    if pattern.name == "Partial index":
        return {"before": ("pattern_part", "pattern_whole"), "after": ("pattern_whole",)}
    if pattern.name == "Covering index":
        return {"before": ("pattern_cover",), "after": ("pattern_plain",)}
    return {"before": (), "after": ()}


def _rows(connection: Connection, way: Side) -> int | None:
    return None if not way.sql else len(connection.execute(way.sql.encode(), way.values or None).fetchall())


def _plan(connection: Connection, way: Side) -> str:
    if not way.sql:
        return way.words
    found = connection.execute(
        b"explain (analyze, buffers, costs off, timing off) " + way.sql.encode(), way.values or None
    ).fetchall()
    return "\n".join(_short(row[0], 140) for row in found if "never executed" not in row[0])


def _short(text: str, most: int = 300) -> str:
    return text if len(text) <= most else f"{text[:most]} ..."


def plans(results: list[dict[str, Any]]) -> str:
    """The plans, for people."""
    parts = ["# Plans\n\nWritten by `run.py`.\n"]
    for one in results:
        parts.append(f"## {one['pattern']}\n")
        for side in ("before", "after"):
            parts.append(f"{side.capitalize()}: `{one[side]}`\n\n```\n{one['plans'][side]}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    main()
