"""The disk of the server is full while rows are written: the work says so, none of them stays, the next run ends right.

None of the server's files may grow beyond a limit, as under a quota: more than a segment of WAL, less than the table.
"""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from dbplatform.errors import WorkError
from dbplatform.migrations.engine import MigrationPolicy, apply_migrations, history
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.seeding.apply import apply_seed
from dbplatform.seeding.policy import SeedPolicy
from dbplatform_tests.postgres.archiving_support import ask, fill
from dbplatform_tests.postgres.embedded_support import embedded, open_folder
from dbplatform_tests.postgres.test_seeding_seeds import NOW

pytestmark = pytest.mark.drill
ROOM = 17 << 20


@pytest.fixture
def small() -> Iterator[EmbeddedServer]:
    """A server whose disk is nearly full."""
    with open_folder() as home, embedded(home / "home", settings={"fsync": "off"}) as server:
        with little_room():
            server.start()
        server.ensure_database("small")
        yield server


@contextmanager
def little_room() -> Iterator[None]:
    """What is started within the block cannot write larger files, also later."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def ends_right(server: EmbeddedServer, work: Callable[[Target], None]) -> None:
    """Without room it fails and says why; with room it is done, with every row once."""
    database = Target("small", server.url("small"))
    with pytest.raises(WorkError, match=r"File too large|No space"):
        work(database)
    assert ask(database, "select count(*) from large") == 0
    server.stop()
    server.start()
    database = Target("small", server.url("small"))
    work(database)
    assert ask(database, "select count(*), count(distinct id) from large") == (2500, 2500)


def test_a_seeding_without_room_leaves_no_row_and_the_next_loads_all(small: EmbeddedServer, tmp_path: Path) -> None:
    random = Random(1)
    rows = (f"{n},{random.randbytes(4000).hex()}" for n in range(2500))
    (tmp_path / "large.csv").write_text("\n".join(["id,body", *rows]) + "\n")
    table = "create table large (id int primary key, body text); alter table large alter body set storage plain"
    fill(Target("small", small.url("small")), table)

    def work(database: Target) -> None:
        with connect(database, work="test") as connection:
            policy = SeedPolicy(profile="dev", directory="seeds")
            apply_seed(connection, tmp_path, policy, database="air", now=NOW, lock_timeout_ms=5000)

    ends_right(small, work)


def test_a_migration_without_room_leaves_nothing_of_its_file_and_the_next_does_it(
    small: EmbeddedServer, tmp_path: Path
) -> None:
    (tmp_path / "V1__table.sql").write_text(
        "create table large (id int primary key, body text);\nalter table large alter body set storage plain;\n"
    )
    (tmp_path / "V2__rows.sql").write_text(
        "alter table large add more int;\n"
        "insert into large (id, body) select i, repeat(md5(i::text), 240) from generate_series(1, 2500) i;\n"
    )

    def work(database: Target) -> None:
        with connect(database, work="test") as connection:
            apply_migrations(connection, tmp_path, MigrationPolicy())

    ends_right(small, work)
    with connect(Target("small", small.url("small")), work="test") as connection:
        assert [row.version for row in history(connection, MigrationPolicy())] == ["1", "2"]
