"""The session that migrates: its transactions, how long they wait for locks, and what it was before a file changed it.

What can go to the server together goes in one message, because a small migration costs little but its round trips:
BEGIN and the lock timeout with the first statement; the history row, COMMIT and the clean-up behind the last.
"""

from __future__ import annotations

from functools import cached_property

from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from dbplatform.postgres.connection import AutocommitConnection

# The order matters: RESET SESSION AUTHORIZATION sets the role to none, RESET ROLE then gives back the session's own.
RESET_USER = sql.SQL("reset session authorization; reset role; ")

_HALF_OF_DEADLOCK_TIMEOUT = "select (extract(epoch from current_setting('deadlock_timeout')::interval) * 500)::int"


class MigrationSession:
    """A connection with the settings that it had when migrating began."""

    def __init__(self, connection: AutocommitConnection, *, observed: bool) -> None:
        self.connection = connection
        settings = connection.execute("select name, setting from pg_settings where source = 'session'").fetchall()
        given = [
            sql.SQL("set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
            for name, value in settings
        ]
        kept = sql.SQL("select ") + sql.SQL(", ").join(given) if given else sql.SQL("")
        # Otherwise what one file scanned would be counted with the next (see observe).
        flush = observed and connection.info.server_version >= 150000
        flushed = sql.SQL("select pg_stat_force_next_flush(); " if flush else "")
        self._restore = (RESET_USER + sql.SQL("reset all; ") + flushed + kept).as_bytes(connection)

    @cached_property
    def half_of_deadlock_timeout_ms(self) -> int:
        """After which time of waiting the server has not looked for deadlocks yet."""
        row = self.connection.execute(_HALF_OF_DEADLOCK_TIMEOUT).fetchone()
        assert row is not None
        return max(1, int(row[0]))

    def restore(self) -> None:
        """Undo what a script did to the session (SET, SET ROLE): a dump, for example, empties ``search_path``."""
        self.connection.execute(self._restore)

    def execute(self, statement: str, head: sql.Composed | None = None, behind: bytes = b"") -> list[TupleRow]:
        """Run a file's statement, ``head`` before it and ``behind`` after it in the same message; what that gives."""
        text = statement.encode() + behind
        cursor = self.connection.execute(text if head is None else head.as_bytes(self.connection) + text, prepare=False)
        if not behind:
            return []
        while cursor.nextset():
            pass
        return cursor.fetchall()

    def commit(self, row: sql.Composable) -> None:
        """Write the history row as the session's own user, commit, and restore the session."""
        done = RESET_USER + row + sql.SQL("; commit; ")
        self.connection.execute(done.as_bytes(self.connection) + self._restore)

    def rollback(self) -> None:
        """End what is open, if the session can still be asked to, and restore it."""
        if self.connection.closed or self.connection.info.transaction_status == TransactionStatus.ACTIVE:
            return
        if self.connection.info.transaction_status != TransactionStatus.IDLE:
            self.connection.execute("rollback")
        self.restore()


def begin(lock_timeout_ms: int, *, at_once: bool) -> sql.Composed:
    """What opens the transaction of a file; unless ``at_once``, its commit need not be on disk when it returns.

    The log is written in its order: whatever a crash of the server takes away then, it takes whole files from the end,
    each with its history row (manual, "Asynchronous Commit").
    """
    relaxed = sql.SQL("" if at_once else "set local synchronous_commit = off; ")
    return sql.SQL("begin; ") + relaxed + waiting(lock_timeout_ms)


def waiting(lock_timeout_ms: int) -> sql.Composed:
    """How long statements of this transaction may wait for a lock from here on.

    No query, so that a file may still say SET TRANSACTION.
    """
    return sql.SQL("set local lock_timeout = {}; ").format(sql.Literal(lock_timeout_ms))
