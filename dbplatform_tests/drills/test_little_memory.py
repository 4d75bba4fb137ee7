"""Far more data than memory: it streams through, or the command says that memory was refused and nothing is lost.

Each command is first measured over a little data; then it may hold ``ROOM`` bytes more, and works on many times that.
"""

from __future__ import annotations

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from dbplatform.home import Home
from dbplatform.quality.policy import FAILED_ROWS_KEPT
from dbplatform_tests.drills.little_memory import MEASURE
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.installation import Installation

ROOM = 48 << 20
#: Rows of a kilobyte: four times the room.
MUCH = 200_000
TABLE = "create table large (id int, at timestamptz not null, n int, body text, primary key (id, at))"
#: Two years of them, evenly, up to a month ago.
ROWS = """
    insert into large
    select i, date_trunc('month', now()) - interval '1 month' - interval '700 days' * i / {rows}, i % 9,
           repeat(md5(i::text), 30)
    from generate_series(1, {rows}) i
"""
#: An argument may only be known when its turn has come.
Command = tuple[str, ...] | Callable[[Installation], tuple[str, ...]]


class Load(ABC):
    """What one capability does with a database of so many rows."""

    DECLARED: ClassVar[str]
    LITTLE: ClassVar[int] = 100

    def __init__(self, installation: Installation, name: str, rows: int) -> None:
        self.installation, self.name, self.rows = installation, name, rows
        self.folder = installation.folder / "defs" / name
        self.folder.mkdir(parents=True)
        head = f"type: dbplatform.ManagedDatabase\nattributes:\n  name: {name}\n"
        (self.folder / "defs.yaml").write_text(head + self.DECLARED.replace("{name}", name))
        installation.server.ensure_database(name)
        self.prepare()

    def prepare(self) -> None:
        """Fill it."""
        self.run(TABLE, ROWS.format(rows=self.rows))

    @abstractmethod
    def commands(self) -> Iterator[tuple[str, ...]]:
        """One after the other; what each needs is asked for when the one before it has ended."""

    @abstractmethod
    def ended(self) -> None:
        """Assert that all was done, and once."""

    def run(self, *statements: str) -> None:
        with self.installation.connect(self.name) as session:
            for statement in statements:
                session.execute(statement.encode())

    def ask(self, question: str, *values: Any, database: str | None = None) -> Any:
        with self.installation.connect(database or self.name) as session:
            row = session.execute(question.encode(), values or None).fetchone()
        assert row is not None
        return row[0] if len(row) == 1 else row

    def whole(self, database: str | None = None) -> bool:
        """Whether every row is there, once."""
        found = self.ask("select count(*), count(distinct id), min(length(body)) from large", database=database)
        return bool(found == (self.rows, self.rows, 960))


class Seeding(Load):
    DECLARED = "  seeds: [{profile: dev, directory: seeds}]\n"

    def prepare(self) -> None:
        self.run(TABLE)
        (self.folder / "seeds").mkdir()
        with (self.folder / "seeds" / "large.csv").open("w") as file:
            file.write("id,at,n,body\n")
            file.writelines(f"{n},2026-01-01T00:00:00Z,{n % 9},{'0123456789abcdef' * 60}\n" for n in range(self.rows))

    def commands(self) -> Iterator[tuple[str, ...]]:
        yield ("seed", "apply", self.name)

    def ended(self) -> None:
        assert self.whole()


class Partitions(Load):
    """Every row lies in the default partition."""

    DECLARED = "  partitioned_tables: [{table: large, column: at, interval: 1 month, premake: 1}]\n"

    def prepare(self) -> None:
        self.run(
            f"{TABLE} partition by range (at)",
            "create table large_default partition of large default",
            ROWS.format(rows=self.rows),
        )

    def commands(self) -> Iterator[tuple[str, ...]]:
        yield ("partition", "apply", self.name)

    def ended(self) -> None:
        assert self.whole()
        assert self.ask("select count(*) from large_default") == 0


class Conversion(Load):
    DECLARED = Partitions.DECLARED

    def commands(self) -> Iterator[tuple[str, ...]]:
        yield ("partition", "convert", self.name, "--table", "large")

    def ended(self) -> None:
        assert self.whole()
        assert self.ask("select relkind::text from pg_class where oid = 'large'::regclass") == "p"


class Archives(Load):
    """Rows leave for a file and come back."""

    DECLARED = "  backups: {}\n  archives: [{name: old, table: large, column: at, older_than: 1 day}]\n"

    def prepare(self) -> None:
        super().prepare()
        self.installation.here("backup", "create", self.name)
        self.installation.here("drill", self.name)

    def commands(self) -> Iterator[tuple[str, ...]]:
        yield ("archive", "apply", self.name)
        assert self.ask("select count(*) from large") == 0
        [archive] = self.installation.here("archive", "list", self.name)["archives"]
        yield ("archive", "verify", self.name)
        yield ("archive", "restore", self.name, archive["id"], "--yes")

    def ended(self) -> None:
        assert self.whole()


class LogicalBackups(Load):
    DECLARED = "  backups: {}\n"

    def commands(self) -> Iterator[tuple[str, ...]]:
        yield ("backup", "create", self.name)
        yield ("drill", self.name)
        yield ("restore", self.name, "--into", f"{self.name}_back")

    def ended(self) -> None:
        assert self.whole()
        assert self.whole(f"{self.name}_back")
        assert self.installation.here("backup", "list", self.name)["backups"][0]["proven_at"]


class DataQuality(Load):
    """Eight of nine rows fail one check and all fail another, and as many as may be are kept; every text is a key."""

    DECLARED = (
        "  quality: [{table: large, checks: [{range: {column: n, max: 0, keep_rows: 1000000}},"
        " {matches: {column: body, regex: '^never$'}}, {unique: [body]}]}]\n"
    )
    #: So many that they are streamed, too, for which the libraries take memory of their own.
    LITTLE = 40_000

    def commands(self) -> Iterator[tuple[str, ...]]:
        yield ("check", self.name, "--json")

    def ended(self) -> None:
        failing = self.rows - self.rows // 9
        found = self.ask(
            "select jsonb_object_agg(type, jsonb_build_array(status, failed_rows, kept_rows))"
            " from ledger.quality_result join ledger.quality_run using (run_id) where database = %s",
            self.name,
            database="dbplatform_ledger",
        )
        assert found["range"] == ["failed", failing, failing]
        assert found["matches"] == ["failed", self.rows, min(self.rows, FAILED_ROWS_KEPT)]
        assert found["unique"] == ["passed", 0, 0]


class Maintenance(Load):
    DECLARED = "  maintenance: {due: {min_size: 64kB}}\n"

    def prepare(self) -> None:
        self.run(f"{TABLE} with (autovacuum_enabled = off)", ROWS.format(rows=3 * self.rows))
        self.run("delete from large where id % 3 <> 0", "vacuum analyze large")

    def commands(self) -> Iterator[tuple[str, ...]]:
        yield ("optimize", "full", self.name, "--now")

    def ended(self) -> None:
        assert self.whole()
        assert self.ask("select bool_and(indisvalid) from pg_index where indrelid = 'large'::regclass")


class Metrics(Load):
    """As many tables as others have rows, nearly: each has its own measurements."""

    DECLARED = ""

    def prepare(self) -> None:
        self.tables = self.rows // 40 or 1
        self.run(
            "do $$ begin for i in 1.. " + str(self.tables) + " loop"
            " execute format('create table t_%s (id int primary key)', i); if i % 500 = 0 then commit; end if;"
            " end loop; end $$"
        )

    def commands(self) -> Iterator[tuple[str, ...]]:
        yield ("metrics", self.name, "--json")
        yield ("health", self.name)

    def ended(self) -> None:
        worst = self.installation.here("metrics", self.name)["worst"]
        assert max(len(rows) for rows in worst.values()) == min(self.tables, 10)


LOADS: dict[str, type[Load]] = {
    "seeding": Seeding,
    "partitions": Partitions,
    "conversion": Conversion,
    "archives": Archives,
    "logical": LogicalBackups,
    "quality": DataQuality,
    "maintenance": Maintenance,
    "metrics": Metrics,
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One server for all."""
    home = Home(root=tmp_path_factory.mktemp("little"))
    installation = Installation(home)
    installation.server.start()
    yield home
    installation.server.remove()


@pytest.fixture
def installation(home: Home, tmp_path: Path) -> Installation:
    return Installation(home, folder=tmp_path)


def needed(installation: Installation, command: tuple[str, ...]) -> int:
    """How many bytes the command holds at most where nothing is refused; it ends well, or with findings."""
    answer = bounded(installation, MEASURE, command)
    assert answer.returncode in (0, 1), answer.stderr
    return int(answer.stderr.splitlines()[-1])


def bounded(installation: Installation, bound: int | str, command: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
    return installation.command(str(bound), *command, module="dbplatform_tests.drills.little_memory")


def told(answer: subprocess.CompletedProcess[str]) -> bool:
    """Whether it says in words that memory was refused, and what to do."""
    assert "Traceback" not in answer.stdout + answer.stderr
    assert "mistake of dbplatform" not in answer.stderr
    return answer.returncode == 3 and "memory" in answer.stderr


@pytest.mark.parametrize("capability", cases(*LOADS, sample=()))
def test_far_more_data_than_memory_streams_through(installation: Installation, capability: str) -> None:
    little = LOADS[capability](installation, f"{capability}_little", LOADS[capability].LITTLE)
    much = LOADS[capability](installation, f"{capability}_much", MUCH)
    for measured, command in zip(little.commands(), much.commands(), strict=True):
        answer = bounded(installation, needed(installation, measured) + ROOM, command)
        # A library that ends the process by itself does so with 1, too.
        ended = answer.returncode == 0 or (answer.returncode == 1 and "verdict" in answer.stdout)
        assert ended, f"{command}: {answer.stdout}{answer.stderr}"
    little.ended()
    much.ended()
    for name in (little.name, much.name):
        with installation.connect("postgres") as session:
            session.execute(f"drop database {name} with (force)".encode())


MIGRATIONS = "type: dbplatform.ManagedDatabase\nattributes:\n  name: {name}\n  migrations: {{}}\n"


def script(megabytes: int) -> Iterator[str]:
    """A thousand rows for each megabyte, 500 a statement."""
    for number in range(2 * megabytes):
        rows = (f"({number * 500 + row}, '{'0123456789abcdef' * 64}')" for row in range(500))
        yield "insert into large values\n"
        yield ",\n".join(rows) + ";\n"


def migrations(installation: Installation, name: str, megabytes: int) -> None:
    folder = installation.folder / "defs" / name / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "defs.yaml").write_text(MIGRATIONS.format(name=name))
    (folder / "V1__table.sql").write_text("create table large (id int primary key, body text);\n")
    with (folder / "V2__rows.sql").open("w") as file:
        file.writelines(script(megabytes))
    installation.server.ensure_database(name)


def rows_of(installation: Installation, name: str) -> tuple[Any, ...] | None:
    with installation.connect(name) as session:
        there = session.execute("select to_regclass('large') is not null").fetchone()
        return session.execute("select count(*), count(distinct id) from large").fetchone() if there == (True,) else ()


@pytest.mark.parametrize(
    ("verb", "megabytes"),
    cases(*((verb, size) for verb in ("apply",) for size in (16, 32, 128)), sample=(("apply", 32),)),
)
def test_a_script_larger_than_memory_is_told_and_applied_by_the_next(
    installation: Installation, verb: str, megabytes: int
) -> None:
    """A script is read as a whole, so that what it means is known before anything runs."""
    small, large = f"{verb}_{megabytes}_little", f"{verb}_{megabytes}_much"

    def command(name: str) -> tuple[str, ...]:
        return ("migrate", "apply", name) if verb == "apply" else ("run", name, "--job", f"{name}_migrate")

    migrations(installation, small, 1)
    migrations(installation, large, megabytes)
    answer = bounded(installation, needed(installation, command(small)) + ROOM, command(large))
    if answer.returncode:
        assert told(answer), answer.stdout + answer.stderr
        assert rows_of(installation, large) in ((), (0, 0), (1000 * megabytes, 1000 * megabytes)), "all, or nothing"
    else:
        assert megabytes < ROOM >> 20, "it cannot have been read"
    after = installation.command(*command(large))
    assert after.returncode == 0, after.stderr
    assert rows_of(installation, large) == (1000 * megabytes, 1000 * megabytes)
    with installation.connect(large) as session:
        applied = session.execute("select array_agg(version order by installed_rank) from flyway_schema_history")
        assert applied.fetchone() == (["1", "2"],)
    with installation.connect("dbplatform_ledger") as ledger:
        kept = ledger.execute(
            "select max(length(summary::text)) from ledger.operation where database = %s", (large,)
        ).fetchone()
    assert kept is not None
    assert kept[0] < (megabytes << 20) / 10, "the text of the rows is not kept"
