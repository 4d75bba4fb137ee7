"""What the claims are measured on: a server of its own with the declared systems, small as seeded, or grown.

A system is migrated by its own migrations, partitioned and seeded (``staging``) as declared. It grows by copies of its
seed: each row again with another key, a little earlier, and its references to the copies of what it refers to. So the
shapes are those of the system's own generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg import sql

from dbplatform.declaration.loading import Declared
from dbplatform.declaration.project import Project
from dbplatform.home import Home
from dbplatform.migrations.apply import apply_migrations
from dbplatform.operations import partitions, schema, seeds
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer

T = TypeVar("T")
Connection = psycopg.Connection[Any]
REPOSITORY = Path(__file__).parents[2]
#: Vacuumed and analyzed is what the benchmark says, when it says.
_SERVER = {"autovacuum": "off", "max_wal_size": "4GB"}
#: How every session measures: as PostgreSQL's defaults have it, but for compiling, which takes more than it gives here.
_SESSION = "-c timezone=UTC -c jit=off -c maintenance_work_mem=256MB"
_INDEXES = """
    select i.indexrelid::regclass::text, replace(pg_get_indexdef(i.indexrelid), ' ON ONLY ', ' ON ')
    from pg_index i where i.indrelid = %s::regclass and not i.indisunique
"""
_COLUMNS = """
    select attname from pg_attribute
    where attrelid = %s::regclass and attnum > 0 and not attisdropped and attgenerated = '' order by attnum
"""


class Ground:
    """The server, and what was made on it; ``rows`` is the size of the largest table, ``rounds`` of each comparison."""

    def __init__(self, home: Path, *, rows: int, rounds: int, seconds: float) -> None:
        """``seconds``: how long a window of load lasts."""
        self.home, self.rows, self.rounds, self.seconds = Home(root=home), rows, rounds, seconds
        self._made: dict[str, Any] = {}
        self.server = EmbeddedServer(self.home, settings=_SERVER)
        self.server.start()
        self.platform = Platform(Project.at(REPOSITORY))

    def declared(self, system: str) -> Declared:
        return self.platform.declarations.get(system)

    def url(self, database: str) -> str:
        return self.server.url(database)

    @contextmanager
    def session(self, database: str) -> Iterator[Connection]:
        """Each statement by itself, planned each time."""
        with psycopg.connect(
            self.url(database), autocommit=True, prepare_threshold=None, options=_SESSION
        ) as connection:
            yield connection

    def once(self, name: str, make: Callable[[], T]) -> T:
        """What several claims rest on, made by the first of them."""
        if name not in self._made:
            self._made[name] = make()
        made: T = self._made[name]
        return made

    def small(self, system: str) -> Declared:
        """A declared system as it is when it was migrated and seeded."""
        declared = self.declared(system)

        def make() -> None:
            schema.apply(self.platform, declared)
            if declared.database.partitioned_tables:
                partitions.apply(self.platform, declared)
            seeds.apply(self.platform, declared, profile="staging")
            self.tidy(system)

        self.once(system, make)
        return declared

    def grown(self, system: str, grow: Callable[[Ground], None]) -> Declared:
        """The same, grown to the size that the claims are about."""
        declared = self.small(system)

        def make() -> None:
            grow(self)
            self.tidy(system)

        self.once(f"{system}, grown", make)
        return declared

    def tidy(self, database: str) -> None:
        """Statistics, a visibility map, and nothing left for the checkpointer."""
        with self.session(database) as connection:
            connection.execute("vacuum (analyze)")
            connection.execute("checkpoint")

    def beside(self, system: str, version: str | None = None) -> str:
        """An empty database with the system's schema, of today or up to a version; its name."""
        name = f"{system}_v{version or 'today'}"

        def make() -> None:
            self.server.ensure_database(name)
            policy, folders = schema.policy_of(self.declared(system))
            with connect(Target(name, self.url(name)), work="bench") as connection:
                apply_migrations(connection, folders, policy, target=version, database=name)

        self.once(name, make)
        return name

    def copy(self, system: str, name: str) -> None:
        """Another database like that one is now."""
        with self.session("postgres") as connection:
            connection.execute(
                sql.SQL("create database {} template {} strategy file_copy").format(
                    sql.Identifier(name), sql.Identifier(system)
                )
            )

    def restart(self, **settings: str) -> None:
        """The same server with other settings, its memory empty."""
        self._let_go()
        self.server.stop()
        self.server = EmbeddedServer(self.home, settings=_SERVER | settings)
        self.server.start()
        self.platform = Platform(Project.at(REPOSITORY))

    def close(self) -> None:
        self._let_go()
        self.server.remove()

    def _let_go(self) -> None:
        """The ledger's sessions, where it was opened."""
        ledger = vars(self.platform).get("ledger")
        if ledger is not None:
            ledger.engine.dispose()


@contextmanager
def filling(connection: Connection, tables: Sequence[str]) -> Iterator[None]:
    """Without triggers, foreign keys and the indexes that keep no constraint, which are built again at the end."""
    found = [row for table in tables for row in connection.execute(_INDEXES.encode(), (table,)).fetchall()]
    connection.execute("set session_replication_role = replica")
    for name, _ in found:
        connection.execute(b"drop index " + name.encode())
    yield
    for _, definition in found:
        connection.execute(definition.encode())
    connection.execute("reset session_replication_role")


def multiply(
    connection: Connection,
    table: str,
    copies: range,
    changed: Mapping[str, str | None],
    *,
    where: str = "true",
) -> None:
    """Each row ``s`` of a table again for each ``copy``, with these columns changed; None: left to its default."""
    if not copies:
        return
    columns = [row[0] for row in connection.execute(_COLUMNS.encode(), (table,))]
    assert not set(changed) - set(columns), (table, set(changed) - set(columns))
    kept = [column for column in columns if changed.get(column, "") is not None]
    values = [
        sql.SQL(changed[column]) if changed.get(column) else sql.SQL("s.{}").format(sql.Identifier(column))  # type: ignore[arg-type]
        for column in kept
    ]
    connection.execute(
        sql.SQL("insert into {0} ({1}) select {2} from {0} s, generate_series({3}, {4}) copy where {5}").format(
            sql.Identifier(table),
            sql.SQL(", ").join(map(sql.Identifier, kept)),
            sql.SQL(", ").join(values),
            sql.Literal(copies.start),
            sql.Literal(copies.stop - 1),
            sql.SQL(where),  # type: ignore[arg-type]
        )
    )


def again(column: str) -> str:
    """The key of a copy, and what refers to it: made of the row's own."""
    return f"md5(s.{column}::text || '/' || copy)::uuid"


def hexadecimal(column: str) -> str:
    """64 digits like those of a hash."""
    return f"md5(s.{column} || copy) || md5(copy || s.{column})"


def earlier(column: str, seconds: int = 61) -> str:
    """A copy is that much earlier than the one before it."""
    return f"s.{column} - copy * interval '{seconds} seconds'"
