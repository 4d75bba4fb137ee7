"""A file under way: the statement that runs, how long each took, how long it may wait for locks, its history row."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from psycopg import sql
from psycopg.pq import TransactionStatus

from dbplatform.migrations import classify, rewrites
from dbplatform.migrations.history import insertion
from dbplatform.migrations.observe import LOOK, NO_EFFECT, UNSEEN, Effect, Observer
from dbplatform.migrations.plan import PendingMigration
from dbplatform.migrations.policy import MigrationPolicy
from dbplatform.migrations.session import MigrationSession, begin, waiting
from dbplatform.migrations.statements import Statement

_SHOWN_CHARACTERS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class StatementRun:
    """One statement that ran, and how long it took in the try that counted."""

    sql: str
    """Without its secrets, and cut where it is long: one of data may be of any size, and this is kept."""
    line: int
    seconds: float
    effect: Effect | None
    """None where nobody could look."""

    def as_json(self) -> dict[str, Any]:
        """One of ``statements`` in the contract."""
        seen = UNSEEN if self.effect is None else self.effect.as_json()
        return {"sql": self.sql, **seen, "seconds": self.seconds}


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]} ... ({len(text):,} characters)"


class Running:
    """One file, in all of its tries."""

    def __init__(
        self,
        session: MigrationSession,
        migration: PendingMigration,
        policy: MigrationPolicy,
        observer: Observer | None = None,
    ) -> None:
        self.session = session
        self.connection = session.connection
        self.migration = migration
        self.file = migration
        """Whose statement runs: its own, or a callback's."""
        self.policy = policy
        self.observer = observer
        self.statement: Statement | None = None
        """The one that runs now, or that failed."""
        self.head = 0
        """How many characters went to the server before it in the same message."""
        self.finished: list[StatementRun] = []
        self.found_done = False
        self.marked = False
        """Whether its progress is marked in the database."""
        self.started = time.monotonic()

    @property
    def milliseconds(self) -> int:
        return round((time.monotonic() - self.started) * 1000)

    @property
    def lock_timeout_ms(self) -> int:
        return self.policy.lock_timeout.milliseconds

    @property
    def sets_lock_timeout(self) -> bool:
        """Whether the file, or a callback around it, sets its own, which then counts."""
        return any(classify.sets_lock_timeout(file.statements) for file in self.migration.files)

    def in_transaction(self, *, at_once: bool) -> None:
        """All statements, the history row and the commit; rolled back and the session restored when one fails.

        ``at_once``: the commit, and all before it, are on disk when it returns.
        """
        self.finished.clear()
        self.started = time.monotonic()
        if self.observer is not None:
            self.observer.begin()
        head: sql.Composed | None = begin(self.lock_timeout_ms, at_once=at_once)
        holds_locks = shortened = False
        try:
            for statement in self.statements_of(*self.migration.files):
                if holds_locks and not (self.sets_lock_timeout or shortened):
                    head = waiting(min(self.lock_timeout_ms, self.session.half_of_deadlock_timeout_ms))
                    shortened = True
                self.execute(statement, head)
                head = None
                holds_locks = holds_locks or not classify.session_only(statement)
            if head is not None:
                self.connection.execute(head)
            self.session.commit(self.row())
        except BaseException:
            self.session.rollback()
            raise

    def statements_of(self, *files: PendingMigration) -> Iterator[Statement]:
        """The statements of the file and of callbacks around it, one after the other."""
        for file in files:
            self.file = file
            yield from file.statements
        self.file = self.migration

    def execute(self, statement: Statement, head: sql.Composed | None = None) -> None:
        """Run a statement, with ``head`` before it; one that would rewrite a table without leave is refused now."""
        self.statement = statement
        judged = not self.file.may_rewrite and classify.retyped(statement)
        if head is not None and (judged or statement.copy_data is not None):
            self.connection.execute(head)
            head = None
        if judged and rewrites.rewrites(self.connection, statement):
            raise classify.refused(classify.RETYPE, statement, file=self.file.path)
        self.head = len(head.as_string(self.connection)) if head is not None else 0
        if self.observer is not None:
            self.observer.admit(statement)
        started = time.monotonic()
        effect = self._run(statement, head)
        seconds = time.monotonic() - started
        if self.file is self.migration:
            self.finished.append(
                StatementRun(sql=_cut(statement.shown), line=statement.line, seconds=seconds, effect=effect)
            )
        self.statement = None

    @property
    def may_go_unseen(self) -> bool:
        """Whether somebody looks on who need not."""
        return self.observer is not None and not self.observer.guards

    @property
    def _outside_transaction(self) -> bool:
        return self.connection.info.transaction_status == TransactionStatus.IDLE

    def _run(self, statement: Statement, head: sql.Composed | None) -> Effect | None:
        """Run the statement; its effect, where somebody looks."""
        observer = self.observer
        if observer is not None and classify.session_only(statement):
            # A look would be a query, behind which SET TRANSACTION is refused.
            self.session.execute(statement.sql, head)
            return NO_EFFECT
        if observer is not None and head is None and self._outside_transaction:
            if classify.may_commit(statement):
                # It gives back its locks at each of its commits, too fast to be looked at.
                self.session.execute(statement.sql)
                return None
            with observer.looking_on(statement) as seen:
                self.session.execute(statement.sql)
            return seen[0] if seen else None
        look = LOOK if observer is not None else b""
        if statement.copy_data is None:
            rows = self.session.execute(statement.sql, head, look)
        else:
            with self.connection.cursor().copy(statement.sql.encode()) as copy:
                copy.write(statement.copy_data)
            rows = self.session.execute("", behind=look) if look else []
        return observer.effect(statement, rows) if observer is not None and look else None

    def row(self) -> sql.Composed:
        """What writes the history row of the file; a callback has none."""
        migration = self.migration
        if migration.migration.kind == "callback":
            return sql.SQL("select").format()
        return insertion(
            self.policy.history_table,
            version=migration.version,
            description=migration.description,
            type=migration.type,
            script=migration.script,
            checksum=migration.checksum,
            milliseconds=self.milliseconds,
        )
