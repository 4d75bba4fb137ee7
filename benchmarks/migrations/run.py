"""200 small migrations by dbplatform, Alembic and yoyo: each as a whole process, in turn, on one server.

    python benchmarks/migrations/run.py [--files 200] [--rounds 7]

Starts an embedded PostgreSQL of its own with the settings that a user gets (fsync on), and installs the other tools by
``requirements.lock`` into ``benchmarks/migrations/.tools``. Every tool runs the same SQL, one transaction per file, in
a database that is made anew for each; their order changes with the round. The ledger of dbplatform exists before the
first measured round, and so does the bytecode of every tool, whatever the environment says of writing it. Prints a
table, and writes ``results.json`` beside.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg

from dbplatform.home import Home
from dbplatform.postgres.embedded.server import EmbeddedServer

HERE = Path(__file__).parent
TOOLS = HERE / ".tools"

SQL = """\
create table t{n} (
    id bigint generated always as identity primary key,
    name text not null,
    created_at timestamptz not null default now()
);
create index t{n}_name on t{n} (name);
"""

ENV = """\
from alembic import context
from sqlalchemy import create_engine
engine = create_engine(context.get_x_argument(as_dictionary=True)["url"])
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=None, transaction_per_migration=True)
    with context.begin_transaction():
        context.run_migrations()
"""

REVISION = """\
from alembic import op
revision, down_revision = {name!r}, {before!r}
def upgrade():
    op.execute({sql!r})
def downgrade():
    pass
"""

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: bench
  connection: {url_env: BENCH_URL}
  migrations: {}
"""


@dataclass(frozen=True, slots=True)
class Tool:
    """A way to bring a database up to date, as one process."""

    name: str
    command: Callable[[str], list[str]]
    """From the URL of the database."""


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--files", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    python = _tools()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["DBPLATFORM_HOME"] = str(Path(folder) / "home")
        server = EmbeddedServer(Home(root=Path(folder) / "home"))
        server.start()
        try:
            tools = _write(Path(folder), python, options.files)
            os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "bytecode")
            os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
            results = _measure(server, tools, options.rounds, options.files)
        finally:
            server.remove()
    results["python"], results["machine"] = platform.python_version(), f"{os.cpu_count()} CPUs, {platform.system()}"
    (HERE / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    _show(results)


def _tools() -> Path:
    """The interpreter with the other tools, installed when it is missing or its lock has changed."""
    lock, stamp, python = HERE / "requirements.lock", TOOLS / ".lock", TOOLS / "bin" / "python"
    if not stamp.is_file() or stamp.read_text() != lock.read_text():
        subprocess.run([sys.executable, "-m", "venv", "--clear", TOOLS], check=True)
        install = [python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock]
        subprocess.run(install, check=True)
        stamp.write_text(lock.read_text())
    return python


def _write(folder: Path, python: Path, files: int) -> list[Tool]:
    ours, alembic, yoyo = folder / "ours", folder / "alembic", folder / "yoyo"
    migrations = ours / "defs" / "bench" / "migrations"
    for made in (migrations, alembic / "versions", yoyo):
        made.mkdir(parents=True)
    (migrations.parent / "defs.yaml").write_text(DECLARATION)
    (alembic / "alembic.ini").write_text(f"[alembic]\nscript_location = {alembic}\n")
    (alembic / "env.py").write_text(ENV)
    (alembic / "script.py.mako").write_text("")
    before = None
    for n in range(1, files + 1):
        sql, name = SQL.format(n=n), f"r{n:04}"
        (migrations / f"V{n}__table_{n}.sql").write_text(sql)
        (alembic / "versions" / f"{name}.py").write_text(REVISION.format(name=name, before=before, sql=sql))
        (yoyo / f"{n:04}.sql").write_text(sql)
        before = name
    ours_ = [sys.executable, "-m", "dbplatform.cli.main", "-C", str(ours), "migrate", "apply", "bench"]
    alembic_ = [str(python), "-m", "alembic", "-c", str(alembic / "alembic.ini")]
    yoyo_ = [str(python), "-m", "yoyo", "apply", "--batch", "--no-config-file"]
    return [
        Tool("dbplatform", lambda _: ours_),
        Tool("alembic", lambda url: [*alembic_, "-x", f"url={_sqlalchemy(url)}", "upgrade", "head"]),
        Tool("yoyo", lambda url: [*yoyo_, "--database", _sqlalchemy(url), str(yoyo)]),
    ]


def _sqlalchemy(url: str) -> str:
    return url.replace("postgresql://", "postgresql+psycopg://")


def _measure(server: EmbeddedServer, tools: list[Tool], rounds: int, files: int) -> dict[str, object]:
    seconds: dict[str, dict[str, list[float]]] = {t.name: {"apply": [], "no_op": []} for t in tools}
    for round_ in range(rounds + 1):
        for tool in tools[round_ % len(tools) :] + tools[: round_ % len(tools)]:
            url = _fresh(server)
            applied = _run(tool, url)
            idle = min(_run(tool, url) for _ in range(2))
            if _tables(url) != files:
                raise SystemExit(f"{tool.name} has made {_tables(url)} tables, not {files}")
            if round_:  # the first round only warms up
                seconds[tool.name]["apply"].append(applied)
                seconds[tool.name]["no_op"].append(idle)
    return {"files": files, "rounds": rounds, "seconds": seconds}


def _fresh(server: EmbeddedServer) -> str:
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("drop database if exists bench with (force)")
        connection.execute("create database bench")
        connection.execute("checkpoint")
    return server.url("bench")


def _run(tool: Tool, url: str) -> float:
    started = time.perf_counter()
    done = subprocess.run(
        tool.command(url), env={**os.environ, "BENCH_URL": url}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{tool.name} failed: {done.stdout}{done.stderr}")
    return time.perf_counter() - started


def _tables(url: str) -> int:
    with psycopg.connect(url) as connection:
        row = connection.execute(
            "select count(*) from pg_class where relkind = 'r' and relname ~ '^t[0-9]+$'"
        ).fetchone()
    assert row is not None
    return int(row[0])


def _show(results: dict[str, object]) -> None:
    seconds = results["seconds"]
    assert isinstance(seconds, dict)
    medians = {n: {w: statistics.median(v) for w, v in kinds.items()} for n, kinds in seconds.items()}
    print(f"{results['files']} files, {results['rounds']} rounds, medians in seconds (least to most), and to Alembic's")
    for what in ("apply", "no_op"):
        for name, found in medians.items():
            spread = f"{min(seconds[name][what]):.2f}-{max(seconds[name][what]):.2f}"
            print(f"  {what:6} {name:11} {found[what]:6.2f}  ({spread})  {found[what] / medians['alembic'][what]:5.2f}")


if __name__ == "__main__":
    main()
