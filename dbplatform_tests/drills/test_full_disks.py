"""The disk of the server is full while rows are written: the work says so, none of them stays, the next run ends right.

No session may make a file larger than a limit, as under a quota: more than a segment of WAL, less than the table or the
index that is written. What was there before may be larger.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest

from dbplatform.errors import WorkError
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history
from dbplatform.partitioning.apply import apply_partitions
from dbplatform.partitioning.policy import PartitionPolicy
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.embedded.account import account_for
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.seeding.apply import apply_seed
from dbplatform.seeding.policy import SeedPolicy
from dbplatform_tests.conftest import created
from dbplatform_tests.drills.works import indexes
from dbplatform_tests.postgres import conversion_support as conversion
from dbplatform_tests.postgres.archiving_support import ask
from dbplatform_tests.postgres.embedded_support import as_user, embedded, open_folder
from dbplatform_tests.postgres.maintenance_support import maintain, outcome
from dbplatform_tests.postgres.test_partitioning_default import NOW as MARCH
from dbplatform_tests.postgres.test_seeding_seeds import NOW

pytestmark = pytest.mark.drill
ROOM = 17 << 20
#: How it is told, by whichever way a file grows.
FULL = r"File too large|No space"
#: Of two kilobytes, four a page: more than the room.
ROWS = 9_500


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """A server whose sessions write into files what is theirs: what others have changed stays in its buffers."""
    settings = {"fsync": "off", "shared_buffers": "512MB", "autovacuum": "off"}
    with open_folder() as home, embedded(home / "home", settings=settings) as server:
        server.start()
        yield server


@pytest.fixture
def database(server: EmbeddedServer) -> Iterator[Target]:
    with created(server.url(), "template1") as target:
        yield target


@contextmanager
def little_room(server: EmbeddedServer) -> Iterator[None]:
    """Sessions that begin within the block cannot write beyond the limit of a file."""
    state = server.status()
    assert state.pid is not None
    # Root may be less than root here; the server's own user always may.
    limit = partial(resource.prlimit, state.pid, resource.RLIMIT_FSIZE)
    change = partial(as_user, account_for(state.data_directory).name)
    soft, hard = change(limit)
    change(partial(limit, (ROOM, hard)))
    try:
        yield
    finally:
        change(partial(limit, (soft, hard)))


def refused(server: EmbeddedServer, database: Target, work: Callable[[AutocommitConnection], object]) -> None:
    """Without room the work fails, and says why."""
    with little_room(server), pytest.raises(WorkError, match=FULL), connect(database, work="test") as connection:
        work(connection)


def done(database: Target, work: Callable[[AutocommitConnection], object]) -> None:
    """With room it ends."""
    with connect(database, work="test") as connection:
        work(connection)


def fill(database: Target, *statements: str) -> None:
    """What was there before, and is on the disk."""
    with psycopg.connect(database.url, autocommit=True) as session:
        for statement in (*statements, "vacuum (freeze, analyze)", "checkpoint"):
            session.execute(statement.encode())


def test_a_seeding_without_room_leaves_no_row_and_the_next_loads_all(
    server: EmbeddedServer, database: Target, tmp_path: Path
) -> None:
    body = "0123456789abcdef" * 120
    (tmp_path / "large.csv").write_text("\n".join(["id,body", *(f"{n},{body}" for n in range(ROWS))]) + "\n")
    fill(database, "create table large (id int primary key, body text)")

    def work(connection: AutocommitConnection) -> None:
        policy = SeedPolicy(profile="dev", directory="seeds")
        apply_seed(connection, tmp_path, policy, database="air", now=NOW, lock_timeout_ms=5000)

    refused(server, database, work)
    assert ask(database, "select count(*) from large") == 0
    done(database, work)
    assert ask(database, "select count(*), count(distinct id) from large") == (ROWS, ROWS)


def test_a_migration_without_room_leaves_nothing_of_its_file_and_the_next_does_it(
    server: EmbeddedServer, database: Target, tmp_path: Path
) -> None:
    (tmp_path / "V1__table.sql").write_text("create table large (id int primary key, body text);\n")
    (tmp_path / "V2__rows.sql").write_text(
        "alter table large add more int;\n"
        "insert into large (id, body) select i, repeat(md5(i::text), 60) from generate_series(1, 9500) i;\n"
    )

    def work(connection: AutocommitConnection) -> None:
        apply_migrations(connection, tmp_path, MigrationPolicy())

    refused(server, database, work)
    with connect(database, work="test") as connection:
        assert [row.version for row in history(connection, MigrationPolicy())] == ["1"]
    assert ask(database, "select count(*) from large") == 0
    done(database, work)
    assert ask(database, "select count(*), count(distinct id) from large") == (ROWS, ROWS)
    with connect(database, work="test") as connection:
        assert [row.version for row in history(connection, MigrationPolicy())] == ["1", "2"]


def test_rows_that_find_no_room_in_their_partition_stay_in_the_default_one(
    server: EmbeddedServer, database: Target
) -> None:
    fill(
        database,
        "create table sale (id int, at timestamptz not null, body text, primary key (id, at)) partition by range (at)",
        "create table sale_default partition of sale default",
        "insert into sale select i, timestamptz '2026-02-10' + i * interval '1 s', repeat(md5(i::text), 60)"
        " from generate_series(1, 9500) i",
    )
    policy = PartitionPolicy.model_validate({"table": "sale", "column": "at", "interval": "1 month", "premake": 1})

    def work(connection: AutocommitConnection) -> None:
        apply_partitions(connection, [policy], now=MARCH)

    counts = "select count(*), count(distinct id), (select count(*) from sale_default) from sale"
    refused(server, database, work)
    assert ask(database, counts) == (ROWS, ROWS, ROWS)
    assert ask(database, "select to_regclass('sale_p2026_02') is null")
    done(database, work)
    assert ask(database, counts) == (ROWS, ROWS, 0)


def test_a_conversion_without_room_for_the_index_of_its_key_leaves_a_plain_table_and_the_next_one_converts_it(
    server: EmbeddedServer, database: Target
) -> None:
    """No row is copied: all that takes room is the key with the column of the partitions."""
    fill(
        database,
        "create table event (id text primary key, at timestamptz not null)",
        "alter table event alter id set storage plain",
        "insert into event select repeat(md5(i::text), 60), timestamptz '2026-03-15' - i * interval '1 minute'"
        " from generate_series(1, 9500) i",
    )
    refused(server, database, conversion.forward)
    assert ask(database, "select count(*), count(distinct id) from event") == (ROWS, ROWS)
    with connect(database, work="test") as connection:
        assert conversion.kind(connection) == "r"
    done(database, conversion.forward)
    with connect(database, work="test") as connection:
        assert conversion.kind(connection) == "p"
    assert ask(database, "select count(*), count(distinct id) from event") == (ROWS, ROWS)
    assert ask(database, "select bool_and(indisvalid) from pg_index")


def test_a_rebuild_without_room_leaves_the_bloated_index_alone_and_the_next_run_builds_it(
    server: EmbeddedServer, database: Target
) -> None:
    fill(
        database,
        "create table item (id int, name text)",
        "alter table item alter name set storage plain",
        "insert into item select i, lpad(i::text, 1984, '0') from generate_series(1, 3 * 9500) i",
        "create index item_name on item (name)",
        "delete from item where id % 3 <> 0",
    )
    before = ask(database, "select pg_relation_size('item_name')")
    with little_room(server):
        failed = outcome(maintain(database, kinds={"reindex"}), "reindex", "public.item_name")
    assert failed.state == "failed"
    assert "File too large" in failed.words
    assert (indexes(database, "item"), ask(database, "select pg_relation_size('item_name')")) == (
        [("item_name", True)],
        before,
    )
    assert outcome(maintain(database, kinds={"reindex"}), "reindex", "public.item_name").state == "done"
    assert indexes(database, "item") == [("item_name", True)]
    assert ask(database, "select pg_relation_size('item_name')") < 0.5 * before
    assert ask(database, "select count(*), count(distinct name) from item") == (ROWS, ROWS)
