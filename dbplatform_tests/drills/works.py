"""What the matrices of faults break: each work with its database, what holds at any moment, and its right end."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from dbplatform.archiving.catalogue import rows_away
from dbplatform.archiving.proof import ProvenSnapshot
from dbplatform.archiving.records import deleted_rows
from dbplatform.ledger.ledger import Ledger
from dbplatform.maintenance.model import KINDS
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history
from dbplatform.partitioning.apply import apply_partitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.partitioning.retire import apply_retirement
from dbplatform.postgres.connection import Target, connect
from dbplatform.seeding.apply import apply_seed
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.verify import verify_seed
from dbplatform_tests.drills import test_killed_migration as migration
from dbplatform_tests.postgres import archiving_support as archiving
from dbplatform_tests.postgres import conversion_support as conversion
from dbplatform_tests.postgres import test_partitioning_default as partitioning
from dbplatform_tests.postgres import test_seeding_seeds as seeding
from dbplatform_tests.postgres.archiving_support import ask, fill
from dbplatform_tests.postgres.maintenance_support import maintain
from dbplatform_tests.postgres.maintenance_support import policy as maintenance_policy


@dataclass(frozen=True, kw_only=True)
class Work(ABC):
    """Of one capability: it is there once made, ``run`` any number of times."""

    database: Target
    ledger: Ledger
    folder: Path

    def __post_init__(self) -> None:
        """Make what it works on."""
        self.prepare()

    @abstractmethod
    def prepare(self) -> None:
        """Fill the database and the folder."""

    @abstractmethod
    def run(self) -> None:
        """Do it, as a command does: with a session of its own, to the end or to an error."""

    @abstractmethod
    def holds(self) -> None:
        """Assert what is so at every moment, also in the middle: no row is lost, none is there twice."""

    @abstractmethod
    def ended(self) -> None:
        """Assert that all was done, and once."""


class Migrations(Work):
    """A file that cannot have a transaction, between two that have."""

    def prepare(self) -> None:
        self.folder.mkdir()
        (self.folder / "V1__first.sql").write_text(migration.FIRST)
        (self.folder / migration.SCRIPT).write_text(migration.TWELVE)
        (self.folder / "V3__third.sql").write_text("insert into ran values (31);\ninsert into ran values (32);\n")

    def run(self) -> None:
        with connect(self.database, work="test") as connection:
            apply_migrations(connection, self.folder, MigrationPolicy())

    def holds(self) -> None:
        recorded = self._recorded()
        assert recorded == ["1", "2", "3"][: len(recorded)]
        if recorded:
            assert ask(self.database, "select count(*) = count(distinct statement) from ran")
            assert ask(self.database, "select count(*) from ran where statement > 30") == 2 * ("3" in recorded)

    def ended(self) -> None:
        assert self._recorded() == ["1", "2", "3"]
        ran = ask(self.database, "select array_agg(statement order by statement) from ran")
        assert ran == [2, 4, 6, 8, 10, 12, 31, 32]
        assert indexes(self.database, "t") == [("t_a", True), ("t_b", True)]
        assert ask(self.database, "select count(*) from dbplatform.migration_progress") == 0

    def _recorded(self) -> list[str | None]:
        with connect(self.database, work="test") as connection:
            rows = history(connection, MigrationPolicy())
        assert all(row.success for row in rows)
        return [row.version for row in rows]


class Seeding(Work):
    """Two tables, one of which refers to the other."""

    def prepare(self) -> None:
        self.folder.mkdir()
        (self.folder / "airlines.csv").write_text("carrier,name\nUA,United\nAA,American\n")
        rows = (f"{n},UA,2013-01-{n % 28 + 1:02}T00:00:00Z,{n}" for n in range(2000))
        (self.folder / "flights.csv").write_text("\n".join(["id,line,time,delay", *rows]) + "\n")
        (self.folder / "seed.yaml").write_text(seeding.MANIFEST)
        fill(self.database, seeding.SCHEMA)

    def run(self) -> None:
        with connect(self.database, work="test") as connection:
            apply_seed(
                connection,
                self.folder,
                SeedPolicy(profile="dev", directory="seeds/dev"),
                database="air",
                now=seeding.NOW,
                lock_timeout_ms=5000,
            )

    def holds(self) -> None:
        carriers, flights = self._rows()
        assert (carriers, flights) in ((0, 0), (2, 0), (2, 2000))

    def ended(self) -> None:
        assert self._rows() == (2, 2000)
        with connect(self.database, work="test") as connection:
            policy = SeedPolicy(profile="dev", directory="seeds/dev")
            assert verify_seed(connection, self.folder, policy, database="air", archived=None).passed

    def _rows(self) -> tuple[int, int]:
        return tuple(ask(self.database, "select (select count(*) from airlines), (select count(*) from flights)"))


class Partitions(Work):
    """Rows move out of a default partition into ten new ones; the oldest are then detached."""

    POLICY = PartitionPolicy.model_validate(
        {"table": "sale", "column": "at", "interval": "1 month", "premake": 2, "retain": "6 months"}
    )

    def prepare(self) -> None:
        with connect(self.database, work="test") as connection:
            connection.execute(partitioning.SALE.encode())
            partitioning.fill(connection, 600, "2025-06-01", "2026-03-15")

    def run(self) -> None:
        with connect(self.database, work="test") as connection:
            apply_partitions(connection, [self.POLICY], now=partitioning.NOW)
            apply_retirement(connection, [self.POLICY], None, now=partitioning.NOW)

    def holds(self) -> None:
        with psycopg.connect(self.database.url) as session:
            leaves = session.execute(
                "select relname::text from pg_class where relkind = 'r' and relname ~ '^sale_' order by 1"
            ).fetchall()
            ids = [
                number
                for (leaf,) in leaves
                for (number,) in session.execute(sql.SQL("select id from {}").format(sql.Identifier(leaf)))
            ]
        assert sorted(ids) == list(range(1, 601))

    def ended(self) -> None:
        self.holds()
        attached = "select array_agg(relid::text order by relid::text) from pg_partition_tree('sale') where isleaf"
        months = [*(f"2025_{month:02}" for month in range(9, 13)), *(f"2026_{month:02}" for month in range(1, 6))]
        assert ask(self.database, attached) == ["sale_default", *(f"sale_p{month}" for month in months)]
        assert ask(self.database, "select count(*) from sale_default") == 0
        assert not ask(self.database, "select exists (select from pg_inherits where inhdetachpending)")


class Conversion(Work):
    """A plain table with everything becomes a partitioned one."""

    def prepare(self) -> None:
        fill(self.database, conversion.RICH)
        fill(self.database, "create table was as select * from event")

    def run(self) -> None:
        with connect(self.database, work="test") as connection:
            conversion.forward(connection)

    def holds(self) -> None:
        assert_same(self.database, "event")

    def ended(self) -> None:
        self.holds()
        with connect(self.database, work="test") as connection:
            assert conversion.kind(connection) == "p"
        unvalidated = "select count(*) from pg_constraint where not convalidated and conparentid = 0"
        assert ask(self.database, unvalidated) == 0


@dataclass(frozen=True, kw_only=True)
class Archives(Work):
    """700 of 1000 rows leave for a file, in batches."""

    def prepare(self) -> None:
        fill(self.database, archiving.ORDERS)
        fill(self.database, "create table was as select * from orders")
        self._proofs.append(archiving.prove(self.database))

    @property
    def _proofs(self) -> list[ProvenSnapshot]:
        return self.__dict__.setdefault("proofs", [])  # type: ignore[no-any-return]

    def run(self) -> None:
        archiving.archive(self.database, self.ledger, self.folder, proof=self._proofs[0])

    def holds(self) -> None:
        with connect(self.database, work="look") as connection:
            away = rows_away(self.ledger, archiving.DATABASE, deleted_rows(connection)).get("public.orders", 0)
        assert ask(self.database, "select count(*), count(distinct id) from orders") == (1000 - away, 1000 - away)
        assert ask(self.database, "select count(*) from orders where id > 700") == 300

    def ended(self) -> None:
        assert ask(self.database, "select count(*), min(id) from orders") == (300, 701)
        entry = archiving.only(self.ledger)
        assert (entry.status, entry.rows, entry.deleted_rows) == ("deleted", 700, 700)
        assert archiving.verify(self.database, self.ledger, entry.id).passed
        assert [file.name for file in Path(entry.location).parent.iterdir()] == [f"{entry.id}.parquet"], "no debris"
        assert archiving.restore(self.database, self.ledger, entry.id).restored == 700
        assert_same(self.database, "orders")


class Maintenance(Work):
    """A bloated table: its dead rows go, its indexes are built anew, it is analyzed."""

    def prepare(self) -> None:
        with psycopg.connect(self.database.url, autocommit=True) as session:
            session.execute(
                "create table item (a int primary key, b text unique) with (autovacuum_enabled = off);"
                "insert into item select i, md5(i::text) from generate_series(1, 20000) i;"
                "delete from item where a % 5 <> 0;"
                "select pg_stat_force_next_flush()"
            )
            session.execute("vacuum analyze item")

    def run(self) -> None:
        outcomes = maintain(self.database, maintenance_policy(), KINDS).outcomes
        assert {one.state for one in outcomes} <= {"done"}, [one.as_json() for one in outcomes]

    def holds(self) -> None:
        assert ask(self.database, "select count(*), count(distinct b), sum(a) from item") == (4000, 4000, 40010000)

    def ended(self) -> None:
        self.holds()
        assert indexes(self.database, "item") == [("item_b_key", True), ("item_pkey", True)], "nothing is half built"
        sizes = "select sum(pg_relation_size(indexrelid)) from pg_index where indrelid = 'item'::regclass"
        assert ask(self.database, sizes) < 600_000, "of 1.7 MB that were bloated"


def assert_same(database: Target, table: str) -> None:
    """The table has the rows of ``was``, each as often."""
    names = {"table": sql.Identifier(table), "was": sql.Identifier("was")}
    differ = sql.SQL("(table {table} except all table {was}) union all (table {was} except all table {table})")
    with psycopg.connect(database.url) as session:
        assert session.execute(differ.format(**names)).fetchall() == []


def indexes(database: Target, table: str) -> list[tuple[str, bool]]:
    """The indexes of a table by name, and whether each is valid."""
    with psycopg.connect(database.url) as session:
        return session.execute(
            "select indexrelid::regclass::text, indisvalid from pg_index where indrelid = %s::regclass order by 1",
            (table,),
        ).fetchall()


WORKS: dict[str, type[Work]] = {
    "migrations": Migrations,
    "seeding": Seeding,
    "partitions": Partitions,
    "conversion": Conversion,
    "archives": Archives,
    "maintenance": Maintenance,
}
