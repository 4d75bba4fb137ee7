"""What a statement did to the tables that were there before it, as the server itself tells it.

Which locks it took, which tables it wrote anew, which it read from end to end: read in the migrating session right
behind the statement, before its transaction ends. A second session, which sees none of the transaction, gives each
table the name that others know it by, and tells old tables from new ones.

A statement that cannot have a transaction gives its locks back by itself: the second session looks on while it runs.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from dbplatform.migrations import classify
from dbplatform.migrations.errors import ServerWide
from dbplatform.migrations.statements import Statement
from dbplatform.postgres.connection import AutocommitConnection, beside

#: Table locks from the weakest to the strongest (manual, "Explicit Locking").
MODES = (
    "ACCESS SHARE",
    "ROW SHARE",
    "ROW EXCLUSIVE",
    "SHARE UPDATE EXCLUSIVE",
    "SHARE",
    "SHARE ROW EXCLUSIVE",
    "EXCLUSIVE",
    "ACCESS EXCLUSIVE",
)
#: The same, by the names that ``pg_locks`` gives them.
MODE_OF = {mode.title().replace(" ", "") + "Lock": mode for mode in MODES}

#: Read behind a statement, in its own message. What it scanned and the file it lies in, of each table that it locked;
#: and whether it wrote to a catalog that all databases of the server share.
LOOK = b"""
    ;select l.relation, l.mode, l.database = 0, c.relfilenode, pg_catalog.pg_stat_get_xact_numscans(l.relation)
    from pg_catalog.pg_locks l left join pg_catalog.pg_class c on c.oid = l.relation
    where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'relation' and l.granted
      and (l.relation >= 16384 or (l.database = 0 and l.mode = 'RowExclusiveLock'))
"""
_NAMES = """
    select c.oid, format('%%I.%%I', n.nspname, c.relname), c.relkind, c.relfilenode
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.oid = any (%s) and c.relkind in ('r', 'p', 'm', 'f', 'v')
      and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'dbplatform')
"""
_OF_OTHERS = """
    select l.relation, l.mode, l.granted from pg_locks l
    where l.pid = %s and l.locktype = 'relation' and l.relation >= 16384
"""
_NAMED = """
    select c.oid, format('%%I.%%I', n.nspname, c.relname) from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'dbplatform')
      and (c.relname = any (%(names)s)
           or exists (select from pg_index i join pg_class x on x.oid = i.indexrelid
                      where i.indrelid = c.oid and x.relname = any (%(names)s)))
"""
#: Catalogs of the whole server whose rows a migration may change (src/include/catalog, BKI_SHARED_RELATION).
_SERVER_WIDE = {
    1260: "the server's roles",
    1261: "the membership of roles",
    1262: "the server's databases",
    1213: "the server's tablespaces",
    2964: "the settings of databases and roles",
    6243: "the rights on the server's settings",
    2396: "the comments on databases and roles",
    3592: "the security labels of databases and roles",
    6000: "the server's replication origins",
}
#: Longer than a worker of autovacuum takes to give way to a lock, and never in anybody's way for long.
_SETTINGS = {"lock_timeout": "5s", "statement_timeout": "15s", "idle_session_timeout": "0"}
_ELSEWHERE = "Name a server of its own for trials: connection.scratch_url_env."
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """One lock on one table."""

    relation: str
    mode: str
    held: bool = False
    """Whether a statement before it, in the same transaction, had taken it already."""

    def as_json(self) -> dict[str, Any]:
        return {"relation": self.relation, "mode": self.mode, "held": self.held}


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What one statement did to tables that were there before its file."""

    locks: tuple[Lock, ...]
    """The locks that it took, and those that it ran under on the tables that it locked or names."""
    rewritten: tuple[str, ...]
    """Tables that were written anew, in whole."""
    scanned: tuple[str, ...]
    """Tables that were read from end to end, once or more."""
    wal_bytes: int | None = None
    """What the server wrote to its log meanwhile, whoever it was for; only in a trial."""

    @property
    def strongest(self) -> str | None:
        """The mode of the strongest lock."""
        return max((lock.mode for lock in self.locks), key=MODES.index, default=None)

    def as_json(self) -> dict[str, Any]:
        """A part of ``statements`` in the contract."""
        return {
            "lock": self.strongest,
            "locks": [lock.as_json() for lock in self.locks],
            "rewrites": bool(self.rewritten),
            "rewritten": list(self.rewritten),
            "scanned": list(self.scanned),
            "wal_bytes": self.wal_bytes,
        }


#: Of a statement that changes the session alone.
NO_EFFECT = Effect(locks=(), rewritten=(), scanned=())

#: Nobody could look.
UNSEEN: dict[str, Any] = dict.fromkeys(("lock", "locks", "rewrites", "rewritten", "scanned", "wal_bytes"))


class _Before(NamedTuple):
    """A table as others know it."""

    name: str
    kind: str
    file: int


class Observer:
    """Looks at one migrating session, from within and from a second session. What cannot be seen stays unknown."""

    def __init__(
        self, connection: AutocommitConnection, second: psycopg.Connection[TupleRow], *, trial: bool, server_wide: bool
    ) -> None:
        self._pid = connection.info.backend_pid
        self._second = second
        self._trial = trial
        self._server_wide = server_wide
        self._log_position: int | None = None
        self.begin()

    @property
    def guards(self) -> bool:
        """Whether it keeps what runs from changing more than its database."""
        return not self._server_wide

    def begin(self) -> None:
        """A transaction begins: what others see now is what was there before it."""
        self._before: dict[int, _Before | None] = {}
        self._held: set[tuple[int, str]] = set()
        self._files: dict[int, int | None] = {}
        self._scans: dict[int, int] = {}

    def admit(self, statement: Statement) -> None:
        """Get ready for a statement.

        Raises ``ServerWide`` for what a trial beside a real database must not run, as far as its words tell.
        """
        words = classify.needs_no_transaction(statement)
        if not self._server_wide and words is not None and classify.concerns_server(words):
            raise ServerWide(statement=statement.summary, what="it changes the whole server", hint=_ELSEWHERE)
        if not self._server_wide and classify.may_commit(statement):
            raise ServerWide(statement=statement.summary, what="it commits what it does by itself", hint=_ELSEWHERE)
        if self._trial:
            self._log_position = self._end_of_log()

    def effect(self, statement: Statement, rows: list[TupleRow]) -> Effect | None:
        """What ``LOOK`` told behind the statement. Raises ``ServerWide`` in a trial beside a real database."""
        shared = {oid for oid, _, shared, _, _ in rows if shared}
        touched = next((words for oid, words in _SERVER_WIDE.items() if oid in shared), None)
        if touched is not None and not self._server_wide:
            raise ServerWide(statement=statement.summary, what=f"it changes {touched}", hint=_ELSEWHERE)
        own = [row for row in rows if not row[2]]
        try:
            self._learn({row[0] for row in own})
        except psycopg.Error:
            return None
        locks, rewritten, scanned = [], [], []
        for oid, mode, _, file, scans in own:
            table = self._before[oid]
            if table is None:
                continue
            if (oid, mode) not in self._held:
                self._held.add((oid, mode))
                locks.append(Lock(relation=table.name, mode=MODE_OF[mode]))
            if file is not None and file != self._files.setdefault(oid, table.file):
                self._files[oid] = file
                if table.kind in "rm" and classify.words_of(statement)[0] != "truncate":
                    rewritten.append(table.name)
            if scans > self._scans.get(oid, 0):
                self._scans[oid] = scans
                scanned.append(table.name)
        return Effect(
            locks=_sorted([*locks, *self._held_by(statement, locks)]),
            rewritten=tuple(sorted(rewritten)),
            scanned=tuple(sorted(scanned)),
            wal_bytes=self._written(),
        )

    @contextmanager
    def looking_on(self, statement: Statement) -> Iterator[list[Effect]]:
        """Look at the session again and again while it runs a statement that makes its own transactions.

        The list has the effect when the block has ended, or nothing where nobody could look. In a trial, where nobody
        else is there, the statement is held at its first lock above ACCESS SHARE until that is seen.
        """
        found: list[Effect] = []
        self.begin()
        try:
            old = {oid for (oid,) in self._second.execute("select oid from pg_class").fetchall()}
            if self._trial:
                self._hold(statement)
        except psycopg.Error:
            self._let_go()
            yield found
            return
        ended = threading.Event()
        seen: set[tuple[int, str]] = set()
        thread = threading.Thread(target=self._look_on, args=(ended, seen), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            ended.set()
            thread.join()
        with suppress(psycopg.Error):
            self._learn({oid for oid, _ in seen if oid in old})
            locks = [
                Lock(relation=table.name, mode=MODE_OF[mode])
                for oid, mode in seen
                if (table := self._before.get(oid)) is not None
            ]
            if locks:
                found.append(self._by_itself(locks))

    def _by_itself(self, locks: list[Lock]) -> Effect:
        """Which tables were written anew: their file is another one now."""
        tables = {oid: table for oid, table in self._before.items() if table is not None}
        now = {oid: file for oid, _, _, file in self._second.execute(_NAMES, (list(tables),)).fetchall()}
        rewritten = [t.name for oid, t in tables.items() if t.kind in "rm" and now.get(oid, t.file) != t.file]
        return Effect(locks=_sorted(locks), rewritten=tuple(sorted(rewritten)), scanned=(), wal_bytes=self._written())

    def _end_of_log(self) -> int | None:
        """Where the server's log ends, in bytes; None where it cannot be asked."""
        try:
            row = self._second.execute("select pg_current_wal_insert_lsn() - '0/0'").fetchone()
        except psycopg.Error:
            return None
        return None if row is None else int(row[0])

    def _written(self) -> int | None:
        now = self._end_of_log() if self._trial else None
        return None if now is None or self._log_position is None else now - self._log_position

    def _hold(self, statement: Statement) -> None:
        """Lock the tables that the statement names, and those whose indexes it names."""
        tables = self._second.execute(_NAMED, {"names": sorted(_names(statement))}).fetchall()
        if tables:
            self._learn({oid for oid, _ in tables})
            locked = sql.SQL(", ").join(sql.SQL(name) for _, name in tables)
            self._second.execute("begin")
            self._second.execute(sql.SQL("lock table {} in exclusive mode").format(locked))

    def _look_on(self, ended: threading.Event, seen: set[tuple[int, str]]) -> None:
        last, pause = False, _FIRST_PAUSE_S
        with suppress(psycopg.Error):
            while not last:
                last = ended.wait(pause)
                rows = self._second.execute(_OF_OTHERS, (self._pid,)).fetchall()
                seen.update((oid, mode) for oid, mode, _ in rows)
                if last or not all(granted for _, _, granted in rows):
                    self._let_go()
                pause = min(2 * pause, _LONGEST_PAUSE_S)
            return
        self._let_go()

    def _let_go(self) -> None:
        """Give back the locks of ``_hold_all``."""
        if not self._second.closed and self._second.info.transaction_status != TransactionStatus.IDLE:
            self._second.execute("rollback")

    def _learn(self, oids: set[int]) -> None:
        """The names of tables as others know them; None for what they do not know: it is new."""
        unknown = [oid for oid in oids if oid not in self._before]
        if unknown:
            rows = self._second.execute(_NAMES, (unknown,)).fetchall()
            self._before |= dict.fromkeys(unknown, None) | {
                oid: _Before(name, kind, file) for oid, name, kind, file in rows
            }

    def _held_by(self, statement: Statement, taken: list[Lock]) -> list[Lock]:
        """The locks that were there already, on the tables that the statement names or has just locked."""
        named, fresh = _names(statement), {(lock.relation, lock.mode) for lock in taken}
        relations = {lock.relation for lock in taken}
        locks = []
        for oid, server_mode in self._held:
            table, mode = self._before[oid], MODE_OF[server_mode]
            if table is None or (table.name, mode) in fresh:
                continue
            if table.name in relations or table.name.rpartition(".")[2].strip('"') in named:
                locks.append(Lock(relation=table.name, mode=mode, held=True))
        return locks


def _names(statement: Statement) -> set[str]:
    """Every word that may be a name."""
    return {token.value for token in statement.tokens if token.kind in ("word", "quoted")}


def _sorted(locks: list[Lock]) -> tuple[Lock, ...]:
    return tuple(sorted(locks, key=lambda lock: (-MODES.index(lock.mode), lock.relation)))


@contextmanager
def observing(
    connection: AutocommitConnection, *, trial: bool = False, server_wide: bool = True
) -> Iterator[Observer | None]:
    """An observer of the session; None where no second session can be had: then effects stay unknown.

    ``trial``: the database is a scratch one, in which nobody else is. ``server_wide``: whether what runs may change
    more than this database; where it may not, there is no going without an observer.
    """
    try:
        second = beside(connection, work="watches migrate", settings=_SETTINGS)
    except psycopg.Error:
        if not server_wide:
            raise
        yield None
        return
    with second:
        yield Observer(connection, second, trial=trial, server_wide=server_wide)
