"""The two sides of a comparison: the database itself under other settings, or two copies of it, one of them changed.

An index or a migration never touches the declared database here: the newest backup is restored into a scratch database,
copied once more, and the change made in the copy.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg
from psycopg import RawCursor

from dbplatform.backups.scratch import copied
from dbplatform.benchmarking.errors import BenchmarkFailed, NoCopy, NotComparable
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError, VariableNotSet
from dbplatform.migrations.compare import Files
from dbplatform.migrations.trials.try_out import try_out
from dbplatform.operations import rehearsal
from dbplatform.operations.platform import Platform
from dbplatform.operations.reading import replica_of
from dbplatform.operations.schema import policy_of
from dbplatform.operations.scratch import ScratchSpace
from dbplatform.postgres import replicas
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.prepared import alone

#: What a comparison itself relies on.
_OURS = ("statement_timeout", "transaction_timeout", "default_transaction_read_only", "transaction_read_only", "role")
_NOT_IN_A_SESSION = {
    "postmaster": "it needs a restart of the server",
    "sighup": "it is one of the whole server",
    "internal": "it cannot be set at all",
    "backend": "it is set when a session begins",
    "superuser-backend": "it is set when a session begins",
    "superuser": "it needs a superuser",
}
_CREATE_INDEX = re.compile(r"\s*create\s+(?:unique\s+)?index\b", re.IGNORECASE)

Change = Callable[[AutocommitConnection, ScratchSpace], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A database to measure, the settings of the sessions there, and what it is, in words."""

    target: Target
    words: str
    settings: Mapping[str, str] = field(default_factory=dict)
    copy: bool = False
    """It is one of our own, restored from a backup: what writes may run there."""


def itself(platform: Platform, declared: Declared) -> tuple[Side, str | None]:
    """The declared database, or its replica where that is declared for benchmarks; with the reason why not."""
    primary = platform.target(declared)
    policy = declared.database.benchmarks
    if policy is None or policy.on == "primary":
        return Side(target=primary, words="as it is"), None
    try:
        replica = replica_of(declared)
    except VariableNotSet as not_there:
        return Side(target=primary, words="as it is"), not_there.message
    if replica is None:
        return Side(target=primary, words="as it is"), "no replica is declared (connection.replica_url_env)"
    reason = replicas.reason_not_to_read(replica, primary, wait=declared.database.connection.replica_lag.timedelta)
    if reason is not None:
        return Side(target=primary, words="as it is"), reason
    return Side(target=replica, words="as it is, on its replica"), None


def with_settings(side: Side, settings: Mapping[str, str]) -> Side:
    """The same with settings of the session. Raises ``NotComparable`` for one that is none, or has no such value."""
    words = ", ".join(f"{name} = {value}" for name, value in settings.items())
    with connect(side.target, work="bench") as connection:
        for name, value in settings.items():
            _check(connection, name, value)
    return Side(target=side.target, words=words, settings=settings, copy=side.copy)


def _check(connection: AutocommitConnection, name: str, value: str) -> None:
    row = connection.execute("select context from pg_settings where name = lower(%s)", (name,)).fetchone()
    reason = "there is no such setting" if row is None else _NOT_IN_A_SESSION.get(row[0])
    if name.lower() in _OURS:
        reason = "the comparison itself relies on it"
    if reason is None:
        try:
            with connection.transaction(force_rollback=True):
                connection.execute("select set_config(%s, %s, true)", (name, value))
            return
        except (psycopg.errors.DataError, psycopg.errors.InsufficientPrivilege) as error:
            reason = (error.diag.message_primary or str(error)).rstrip(".")
    hint = "Settings of a session can be, such as work_mem, random_page_cost or enable_seqscan."
    raise NotComparable(what=f"The setting {name}", reason=reason, hint=hint)


def set_all(connection: AutocommitConnection, settings: Mapping[str, str]) -> None:
    """Set them for the session."""
    for name, value in settings.items():
        connection.execute("select set_config(%s, %s, false)", (name, value))


def create_index(statement: str) -> Change:
    """The change that an index is. Raises ``NotComparable`` for another statement."""
    if not _CREATE_INDEX.match(statement):
        raise NotComparable(
            what=f"{statement.strip()[:60]!r}", reason="it is no CREATE INDEX", hint="Write it in a migration instead."
        )

    def make(connection: AutocommitConnection, _: ScratchSpace) -> None:
        try:
            with RawCursor(connection) as cursor:
                alone(cursor, statement.strip().rstrip(";"))
        except psycopg.Error as error:
            if error.sqlstate is None:
                raise
            reason = (error.diag.message_primary or str(error)).rstrip(".")
            raise NotComparable(what="The index", reason=reason, hint="Correct the statement.") from error

    return make


def migrate(declared: Declared, version: str) -> Change:
    """The change that the migrations up to a version are."""
    policy, folders = policy_of(declared)

    def make(connection: AutocommitConnection, space: ScratchSpace) -> None:
        run = try_out(
            connection,
            Files.of(folders),
            policy,
            target=version,
            database=declared.name,
            server_wide=not space.own_server,
        )
        if run.failed is not None:
            raise BenchmarkFailed(
                name=f"the migration to {version}",
                reason=str(run.failed),
                hint=f"See: dbplatform migrate rehearse {declared.name}",
            )
        if not run.migrations:
            raise NotComparable(
                what=f"The migration to {version}",
                reason="the newest backup has it already, so that there is no before",
                hint="Compare with a baseline that was measured before: dbplatform bench compare "
                f"{declared.name} --to NAME",
            )

    return make


@contextmanager
def on_copy(platform: Platform, declared: Declared, what: str) -> Iterator[Side]:
    """A copy restored from the newest backup, vacuumed, dropped at the end. Raises ``NoCopy``."""
    with _restored(platform, declared, what) as (space, words):
        yield Side(target=space.target, words=words, copy=True)


@contextmanager
def before_and_after(
    platform: Platform, declared: Declared, change: Change, *, words: str
) -> Iterator[tuple[Side, Side]]:
    """Two equal copies, one of them changed, both dropped at the end. Raises ``NoCopy``, and what ``change`` does."""
    with _restored(platform, declared, words) as (space, restored):
        if space.room is not None:
            _require_room(space, words)
        with copied(space.scratch, space.server) as second:
            with connect(second, work="bench") as connection:
                change(connection, space)
                connection.execute("vacuum (analyze)")
            before = Side(target=space.target, words=restored, copy=True)
            yield before, Side(target=second, words=f"with {words}", copy=True)


def _require_room(space: ScratchSpace, what: str) -> None:
    assert space.room is not None
    row = space.scratch.maintenance.execute("select pg_database_size(%s)", (space.scratch.name,)).fetchone()
    assert row is not None
    free = shutil.disk_usage(space.room).free
    if free < row[0]:
        raise NotComparable(
            what=what,
            reason=f"a second copy needs {row[0] >> 20:,} MB, and the disk has {free >> 20:,} MB",
            hint="Name a scratch server with more room: connection.scratch_url_env.",
        )


@contextmanager
def _restored(platform: Platform, declared: Declared, what: str) -> Iterator[tuple[ScratchSpace, str]]:
    backup = rehearsal.newest_backup(platform, declared)
    if backup is None:
        raise NoCopy(what=what, database=declared.name, hint=f"Take one: dbplatform backup create {declared.name}")
    with rehearsal.restored(platform, declared, backup) as (space, connection):
        # Rows that were just loaded are read as those of a table that lives.
        connection.execute("vacuum (analyze)")
        connection.close()
        yield space, f"a copy from backup {backup.id}"


def sentence(error: PlatformError) -> str:
    """An error as the reason why a benchmark could not be run."""
    return error.message.rstrip(".")
