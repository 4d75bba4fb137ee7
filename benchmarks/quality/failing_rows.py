"""What ten million failing rows cost: to count them and keep 100,000, to write those to a file, to move rows aside.

    python benchmarks/quality/failing_rows.py [--rows 10000000] [--move 1000000]

An embedded PostgreSQL of its own with the settings that a user gets (fsync on) holds the table and the ledger. Each
measure is a process of its own, whose greatest memory the kernel tells. Exit 1 where a number is not exact, rows are
not kept to the bound, or a client takes 500 MB.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg

from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.quality import export
from dbplatform.quality.engine import check_table
from dbplatform.quality.policy import TablePolicy

KEPT = 100_000
MOST_MB = 500
_TABLE = "create table t (id bigint primary key, a int, email text, b int)"
_ROWS = """
    insert into t select i, null, 'somebody' || i || '@example.org', case when i > %s then 1 end
    from generate_series(1, %s) i
"""


def keep(target: Target, ledger: Ledger) -> tuple[int, int]:
    """Two checks that fail in each row; the rows of one are masked."""
    checks = [{"not_null": "a"}, {"matches": {"column": "email", "regex": "^[0-9]+$"}}]
    policy = TablePolicy(table="t", mask={"email": "partial"}, checks=checks)
    found = check_table(target, ledger, "big", "keep", policy).checks
    assert all(check.kept_rows == KEPT for check in found), found
    return sum(check.failed_rows or 0 for check in found) // 2, found[0].kept_rows


def write(target: Target, ledger: Ledger) -> tuple[int, int]:
    """The kept rows as CSV and as Parquet."""
    kept = export.kept_rows(ledger, "big", "matches_email", run_id="keep")
    with tempfile.TemporaryDirectory() as folder:
        for form in (export.write_csv, export.write_parquet):
            with export.new_file(Path(folder) / "rows") as out:
                form(ledger, kept, out)
    return kept.failed_rows or 0, kept.kept_rows


def move(target: Target, ledger: Ledger) -> tuple[int, int]:
    """A check whose failing rows are moved aside."""
    policy = TablePolicy(table="t", checks=[{"not_null": "b", "quarantine": True}])
    (found,) = check_table(target, ledger, "big", "move", policy).checks
    assert found.quarantined_rows == found.failed_rows, found.message
    return found.failed_rows or 0, found.quarantined_rows or 0


MEASURES = {"keep": keep, "write": write, "move": move}


def main() -> int:
    """Fill the table, then measure one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--move", type=int, default=1_000_000, help="how many rows are moved aside")
    parser.add_argument("--measure", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.measure:
        name, database, ledger = given.measure
        started = time.monotonic()
        failed, rest = MEASURES[name](Target("big", database), Ledger(Target("the ledger", ledger)))
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name}: {failed:,} failing, {rest:,} dealt with, {time.monotonic() - started:.1f} s, {megabytes:.0f} MB"
        )
        return 1 if megabytes >= MOST_MB else 0
    with tempfile.TemporaryDirectory(prefix="failing-rows-") as folder:
        Path(folder).chmod(0o755)
        server = EmbeddedServer(Home(root=Path(folder) / "home"))
        server.start()
        try:
            for name in ("big", "kept"):
                server.ensure_database(name)
            apply_ledger_schema(Target("the ledger", server.url("kept")))
            with psycopg.connect(server.url("big"), autocommit=True) as session:
                session.execute(_TABLE)
                session.execute(_ROWS, (given.move, given.rows))
                session.execute("vacuum analyze t")
            urls = (server.url("big"), server.url("kept"))
            ended = [
                subprocess.run([sys.executable, __file__, "--measure", name, *urls], check=False) for name in MEASURES
            ]
        finally:
            server.remove()
    return max(process.returncode for process in ended)


if __name__ == "__main__":
    sys.exit(main())
