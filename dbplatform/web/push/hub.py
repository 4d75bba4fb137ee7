"""Who watches what; a message is made once and handed to all of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

#: Messages, and characters of them, that wait for one watcher. Who is further behind is let go, and comes back with its
#: tokens.
MOST_WAITING: Final = 256
MOST_CHARACTERS: Final = 8 << 20


def text_of(message: Mapping[str, Any]) -> str:
    """A message as it is sent."""
    return json.dumps(message, separators=(",", ":"), ensure_ascii=False, default=str)


class Watcher:
    """One connection, and what waits for it."""

    def __init__(self) -> None:
        self.waiting: asyncio.Queue[str | None] = asyncio.Queue(MOST_WAITING)
        self.is_behind = False
        self._characters = 0

    async def next(self) -> str | None:
        """What is to be sent next, when there is something; None: it is behind, and gets nothing more."""
        text = await self.waiting.get()
        self._characters -= len(text or "")
        return text

    def give(self, text: str) -> None:
        """Let it be sent; who does not keep up is marked, and gets nothing more."""
        if self.is_behind:
            return
        self._characters += len(text)
        if not self.waiting.full() and self._characters <= MOST_CHARACTERS:
            self.waiting.put_nowait(text)
        else:
            self.is_behind = True
            # The sender is told by the end of the queue, so that a dead connection holds no messages.
            while not self.waiting.empty():
                self.waiting.get_nowait()
            self.waiting.put_nowait(None)


class Hub:
    """The watchers by the database that they watch."""

    def __init__(self) -> None:
        self._watchers: dict[str, set[Watcher]] = {}

    def join(self, watcher: Watcher, databases: Iterable[str]) -> None:
        for database in databases:
            self._watchers.setdefault(database, set()).add(watcher)

    def leave(self, watcher: Watcher) -> None:
        for database in [name for name, watchers in self._watchers.items() if watcher in watchers]:
            self._watchers[database].discard(watcher)
            if not self._watchers[database]:
                del self._watchers[database]

    def watched(self) -> tuple[str, ...]:
        """The databases that somebody watches."""
        return tuple(self._watchers)

    def is_watched(self, database: str) -> bool:
        return database in self._watchers

    def tell_all(self, message: Mapping[str, Any]) -> None:
        """Give a message to everybody, whatever they watch."""
        text = text_of(message)
        for watcher in {watcher for watchers in self._watchers.values() for watcher in watchers}:
            watcher.give(text)

    def tell(self, database: str, message: Mapping[str, Any]) -> str:
        """Give a message about a database to all who watch it; its text."""
        text = text_of({**message, "database": database})
        for watcher in tuple(self._watchers.get(database, ())):
            watcher.give(text)
        return text
