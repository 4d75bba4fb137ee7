"""A listening session that costs the server nothing while nothing happens."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import Final

import psycopg
from psycopg import sql
from psycopg.rows import TupleRow

from dbplatform.errors import PlatformError
from dbplatform.postgres.connection import Target, connect_to_listen

Connection = psycopg.AsyncConnection[TupleRow]

_FIRST_S: Final = 0.2
_MOST_S: Final = 15.0


class Listener:
    """Waits for what is notified, or for ``wake``; no statement is sent meanwhile."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Let ``wait`` return."""
        self._woken.set()

    async def wait(self, connection: Connection) -> list[str]:
        """What was notified since, by its payloads; empty when somebody else woke it. Raises what ended the session."""
        # What came together with the answer of a statement is no longer in the socket.
        if already := await _notified(connection):
            return already
        loop, descriptor = asyncio.get_running_loop(), connection.fileno()
        # psycopg watches the socket itself only while it works with it.
        loop.add_reader(descriptor, self._woken.set)
        try:
            await self._woken.wait()
        finally:
            loop.remove_reader(descriptor)
        self._woken.clear()
        return await _notified(connection)


async def _notified(connection: Connection) -> list[str]:
    return [notify.payload async for notify in connection.notifies(timeout=0)]


async def listening(
    target_of: Callable[[], Target | None],
    channel: str,
    follow: Callable[[Connection], Awaitable[None]],
    lost: Callable[[str | None], None],
) -> None:
    """Hold a session that listens on ``channel``, and ``follow`` what it tells; after a loss again, for ever.

    ``target_of`` gives None while there is nothing to listen to: ``lost`` is told None. Of each end it is told in words
    without a secret.
    """
    pause = _FIRST_S
    while True:
        begun: float | None = None
        try:
            target = await asyncio.to_thread(target_of)
            if target is None:
                lost(None)
            else:
                async with connect_to_listen(target, work=f"listens to {channel}") as connection:
                    await connection.execute(sql.SQL("listen {}").format(sql.Identifier(channel)))
                    begun = time.monotonic()
                    await follow(connection)
        except Exception as error:  # whatever it was, who watches is not left without a word for ever
            lost(error.message if isinstance(error, PlatformError) else type(error).__name__)
        if begun is not None and time.monotonic() - begun > _MOST_S:
            pause = _FIRST_S
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(2 * pause, _MOST_S)
