"""The live tables of one database: its changes are read once, and told to all who watch.

What somebody missed who comes back is answered from memory, and for a token that is not there (the service was
restarted) by one reading for all who come with it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Final

import psycopg

from dbplatform.live import events
from dbplatform.live.events import Change, Connection, Key, Reading, Token
from dbplatform.live.install import CHANNEL, INSTALLED
from dbplatform.live.policy import LivePolicy
from dbplatform.postgres.connection import Target
from dbplatform.postgres.identifiers import Relation
from dbplatform.web.push.hub import Hub, text_of
from dbplatform.web.push.listening import Listener, listening

#: How long more commits are waited for after one, so that a burst is one message.
FOLD_S: Final = 0.02
#: A table that somebody locks for longer is told as changed, without its rows: nothing else waits for it.
LOCK_TIMEOUT: Final = "2s"
#: Messages that are kept for those who come back, and how many characters they have together.
_KEPT: Final = 500
_KEPT_CHARACTERS: Final = 8 * events.MOST_CHARACTERS
_PRUNE_EACH_S: Final = 600.0
#: Tokens that are asked of the database at the same time; more are answered by a reset.
_MOST_ASKED: Final = 32
_NOTHING_LIVE = "its tables are not live yet"


class Feed:
    """The changes of one database. ``run`` follows them for ever."""

    def __init__(
        self,
        database: str,
        policies: Sequence[LivePolicy],
        target_of: Callable[[], Target | None],
        hub: Hub,
        *,
        masked: AbstractSet[tuple[Relation, str]] = frozenset(),
    ) -> None:
        self.database = database
        self.tables = [str(policy.table) for policy in policies]
        self._policies = {str(policy.table): policy for policy in policies}
        self._masked = masked
        """Columns that nobody outside may see."""
        self._target_of = target_of
        self._hub = hub
        self._listener = Listener()
        self._token: Token | None = None
        self._told: deque[tuple[str, str]] = deque()
        """Each message with the token before it."""
        self._told_characters = 0
        self._asked: dict[str, asyncio.Future[str]] = {}
        self._pruned = 0.0
        self.trouble: str | None = _NOTHING_LIVE
        """Why nothing is heard of it at this moment."""
        self.absent = False
        """It was never made, which is no trouble yet."""

    @property
    def token(self) -> str | None:
        """Up to where everything was told."""
        return str(self._token) if self._token else None

    async def run(self) -> None:
        """Follow the database, through every loss of it; ends only when it is cancelled."""
        await listening(self._target_of, CHANNEL, self._follow, self._lost)

    def missed(self, token: str) -> list[str] | None:
        """The messages that somebody missed who has that token; None where only the database can tell."""
        if token == self.token:
            return []
        for place, (before, _) in enumerate(self._told):
            if before == token:
                return [text for _, text in list(self._told)[place:]]
        if Token.parse(token) is None or (token not in self._asked and len(self._asked) >= _MOST_ASKED):
            return [self._reset("the token is not known here")]
        return None

    async def asked(self, token: str) -> str:
        """One message of what was missed, and perhaps more, when the database has answered; once for all who ask."""
        asked = self._asked.setdefault(token, asyncio.get_running_loop().create_future())
        self._listener.wake()
        return await asyncio.shield(asked)

    async def _follow(self, connection: Connection) -> None:
        await connection.execute("select set_config('lock_timeout', %s, false)", (LOCK_TIMEOUT,))
        while True:
            token = await events.now(connection)
            if token is not None:
                self._token = self._token or token
                self._change(None)
                await self._follow_live(connection)
            else:
                self._change(_NOTHING_LIVE)
                await self._listener.wait(connection)

    async def _follow_live(self, connection: Connection) -> None:
        """Until what is live was changed."""
        keys = {table: await self._key(connection, policy) for table, policy in self._policies.items()}
        notified: list[str] = []
        while INSTALLED not in notified:
            await self._tell(connection, keys)
            await self._answer(connection, keys)
            await self._prune(connection)
            notified = await self._listener.wait(connection)
            if notified:
                await asyncio.sleep(FOLD_S)

    async def _key(self, connection: Connection, policy: LivePolicy) -> Key:
        """The key by which rows are read; none where rows would show what is masked."""
        key = await events.key_of(connection, policy.table)
        family = await events.family_of(connection, policy.table)
        masked = {column for table, column in self._masked if table in family}
        shown = {*policy.columns, *(name for name, _ in key)} if policy.columns is not None else masked
        return () if masked & shown else key

    async def _tell(self, connection: Connection, keys: dict[str, Key]) -> None:
        assert self._token is not None
        reading, message = await self._read(connection, keys, self._token)
        # A session that is lost meanwhile is followed from the old token again.
        before, self._token = str(self._token), reading.token
        if reading.reset or reading.changes:
            self._keep(before, self._hub.tell(self.database, message))

    def _keep(self, before: str, text: str) -> None:
        """For those who come back; the oldest go. Who missed one of those is answered by the database."""
        self._told.append((before, text))
        self._told_characters += len(text)
        while len(self._told) > _KEPT or self._told_characters > _KEPT_CHARACTERS:
            _, oldest = self._told.popleft()
            self._told_characters -= len(oldest)

    async def _answer(self, connection: Connection, keys: dict[str, Key]) -> None:
        for text, asked in list(self._asked.items()):
            token = Token.parse(text)
            assert token is not None
            _, message = await self._read(connection, keys, token)
            del self._asked[text]
            if not asked.done():
                asked.set_result(text_of({**message, "database": self.database}))

    async def _read(self, connection: Connection, keys: dict[str, Key], since: Token) -> tuple[Reading, dict[str, Any]]:
        """What is new since the token, and the message of it; a reset where it cannot be read or be said."""
        try:
            reading = await events.read(connection, since)
            message = await self._message(connection, keys, reading)
        except (psycopg.Error, ValueError, RecursionError):
            if connection.closed:
                raise
            # Too slow, or no JSON that anybody could read: it would be the same the next time.
            reading = Reading(token=await events.now(connection) or since, changes=(), reset=True)
            message = await self._message(connection, keys, reading)
        return reading, message

    async def _message(self, connection: Connection, keys: dict[str, Key], reading: Reading) -> dict[str, Any]:
        if reading.reset:
            return {"type": "reset", "token": str(reading.token), "why": "more has changed than is kept"}
        tables = [
            await self._rows(connection, keys, change)
            for change in reading.changes
            if change.relation in self._policies
        ]
        message = {"type": "changes", "token": str(reading.token), "tables": tables}
        if len(text_of(message)) > events.MOST_CHARACTERS:
            # It tells only which tables have changed.
            message["tables"] = [_many(table["table"]) for table in tables]
        return message

    async def _rows(self, connection: Connection, keys: dict[str, Key], change: Change) -> dict[str, Any]:
        key, policy = keys[change.relation], self._policies[change.relation]
        if change.many or not key:
            return _many(change.relation)
        try:
            found = await events.read_rows(connection, policy, key, change)
        except psycopg.errors.LockNotAvailable:
            return _many(change.relation)
        except (psycopg.ProgrammingError, psycopg.DataError):
            # The table is no longer as it was: pages load it by their own means, and the key is looked up again.
            keys[change.relation] = await self._key(connection, policy)
            return _many(change.relation)
        return {"table": change.relation, "rows": found.rows, "gone": found.gone, "many": found.many}

    async def _prune(self, connection: Connection) -> None:
        if time.monotonic() - self._pruned > _PRUNE_EACH_S:
            self._pruned = time.monotonic()
            await events.prune(connection)

    def _reset(self, why: str) -> str:
        return text_of({"type": "reset", "database": self.database, "token": self.token, "why": why})

    def _lost(self, why: str | None) -> None:
        self._change(why or f"it is not made yet: dbplatform run {self.database}", absent=why is None)

    def _change(self, trouble: str | None, *, absent: bool = False) -> None:
        if (trouble, absent) != (self.trouble, self.absent):
            self.trouble, self.absent = trouble, absent
            message = {"type": "feed", "trouble": trouble, "absent": absent, "token": self.token}
            self._hub.tell(self.database, message)


def _many(table: str) -> dict[str, Any]:
    return {"table": table, "rows": [], "gone": [], "many": True}
