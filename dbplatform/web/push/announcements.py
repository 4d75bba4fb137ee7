"""What the ledger announces: that there are newer runs, metrics, alerts, backups, checks or advice of a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from dbplatform.postgres.connection import Target
from dbplatform.web.push.hub import Hub
from dbplatform.web.push.listening import Connection, Listener, listening

CHANNEL: Final = "dbplatform_ledger"
#: A tick writes several things; they are told together.
_FOLD_S: Final = 0.1
#: What is announced of a database: with alerts the silences, with backups the drills, with quality the reviews.
KINDS: Final = ("advice", "alerts", "backups", "metrics", "quality", "runs")
_RUNNING: Final = "select distinct database from ledger.operation where status = 'running'"


class Announcements:
    """Tells watchers what of a database has changed in the ledger; they ask the API for what they show."""

    def __init__(self, ledger: Target, hub: Hub, running: Callable[[frozenset[str]], None]) -> None:
        self._ledger = ledger
        self._hub = hub
        self._running = running
        """Told which databases are worked on, whenever that may have changed."""
        self._listener = Listener()
        self.trouble: str | None = "it is not listened to yet"
        """Why nothing is heard of the ledger at this moment."""

    async def run(self) -> None:
        """For ever, through every loss of the ledger."""
        await listening(lambda: self._ledger, CHANNEL, self._follow, self._change)

    async def _follow(self, connection: Connection) -> None:
        self._change(None)
        # What was announced while nobody listened is not known.
        for database in self._hub.watched():
            self._hub.tell(database, {"type": "state", "what": list(KINDS)})
        await self._look(connection)
        while True:
            notified = await self._listener.wait(connection)
            if notified:
                await asyncio.sleep(_FOLD_S)
            await self._tell(connection, notified)

    async def _tell(self, connection: Connection, notified: list[str]) -> None:
        changed: dict[str, set[str]] = {}
        for payload in notified:
            what, _, database = payload.partition(" ")
            # A silence may be of every database.
            for name in [database] if database else self._hub.watched():
                changed.setdefault(name, set()).add(what)
        for database, kinds in changed.items():
            self._hub.tell(database, {"type": "state", "what": sorted(kinds)})
        if any("runs" in kinds for kinds in changed.values()):
            await self._look(connection)

    async def _look(self, connection: Connection) -> None:
        rows = await (await connection.execute(_RUNNING.encode())).fetchall()
        self._running(frozenset(name for (name,) in rows))

    def _change(self, trouble: str | None) -> None:
        if trouble != self.trouble:
            self.trouble = trouble
            self._hub.tell_all({"type": "ledger", "trouble": trouble})
