"""``/ws``: what one connection may say, and what it is sent.

The client says one thing, first: ``{"type": "subscribe", "databases": ["shop"], "since": {"shop": TOKEN}}``. It is sent
``hello``, what it missed since its tokens, then everything as it happens, and a ``heartbeat`` when nothing does.
Whoever is too slow is closed (1013) and comes back with its last tokens; who says anything else is closed, too (1008).
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Annotated, Any, Final, Literal
from urllib.parse import urlsplit

from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from dbplatform.web.push.feed import Feed
from dbplatform.web.push.hub import Watcher, text_of
from dbplatform.web.push.service import Push

HEARTBEAT_S: Final = 15.0
_HEARTBEAT: Final = text_of({"type": "heartbeat"})
_FIRST_WORD_S: Final = 10.0
#: How long somebody who had to say who they are may watch before they are asked again.
KNOWN_S: Final = 600.0
_REFUSED: Final = 1008
_TRY_AGAIN: Final = 1013

_Name = Annotated[str, Field(max_length=63)]
_Token = Annotated[str, Field(max_length=5000)]


class Subscribe(BaseModel):
    """The one message of a client."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["subscribe"]
    databases: Annotated[list[_Name], Field(min_length=1, max_length=500)]
    since: Annotated[dict[_Name, _Token], Field(max_length=500)] = {}


def router(push: Push) -> APIRouter:
    """The route over what is pushed."""
    routes = APIRouter()

    @routes.websocket("/ws")
    async def watch(connection: WebSocket) -> None:
        if not _same_origin(connection):
            await connection.close(_REFUSED, "a page of another origin may not watch")
            return
        await connection.accept()
        wanted = await _first_word(connection, push)
        if wanted is not None:
            await _serve(connection, push, wanted)

    return routes


async def _first_word(connection: WebSocket, push: Push) -> Subscribe | None:
    """What the client wants; None: it was closed."""
    try:
        async with asyncio.timeout(_FIRST_WORD_S):
            wanted = Subscribe.model_validate_json(await connection.receive_text())
    except TimeoutError:
        await connection.close(_REFUSED, "say first what is to be watched")
    except (ValidationError, KeyError):
        await connection.close(_REFUSED, 'say {"type": "subscribe", "databases": ["name"], "since": {}}')
    except WebSocketDisconnect:
        pass
    else:
        unknown = sorted(set(wanted.databases) - push.names)
        if not unknown:
            return wanted
        await connection.close(_REFUSED, f"the database {unknown[0]} is not declared here")
    return None


async def _serve(connection: WebSocket, push: Push, wanted: Subscribe) -> None:
    watcher = Watcher()
    # Joined before the past is looked up: what happens meanwhile comes twice rather than never.
    push.hub.join(watcher, wanted.databases)
    talking = asyncio.create_task(_talk(connection, push, wanted, watcher))
    hearing = asyncio.create_task(connection.receive())
    life = KNOWN_S if connection.state.caller.known else None
    try:
        await asyncio.wait({talking, hearing}, return_when=asyncio.FIRST_COMPLETED, timeout=life)
        over = not talking.done() and not hearing.done()
    finally:
        push.hub.leave(watcher)
        for task in (talking, hearing):
            task.cancel()
        await asyncio.gather(talking, hearing, return_exceptions=True)
    with suppress(RuntimeError, WebSocketDisconnect):
        if watcher.is_behind:
            await connection.close(_TRY_AGAIN, "too slow: come back with the last tokens")
        elif over:
            await connection.close(_TRY_AGAIN, "come back with the last tokens: who may watch is asked again")
        elif hearing.done() and not hearing.cancelled() and hearing.result()["type"] == "websocket.receive":
            await connection.close(_REFUSED, "nothing more is to be said")


async def _talk(connection: WebSocket, push: Push, wanted: Subscribe, watcher: Watcher) -> None:
    with suppress(WebSocketDisconnect, RuntimeError):
        await connection.send_text(text_of(_hello(push, wanted)))
        asking = []
        for database, token in wanted.since.items():
            feed = push.feeds.get(database)
            if feed is not None and database in wanted.databases:
                missed = feed.missed(token)
                if missed is None:
                    # Beside all else: a database that is down silences no other.
                    asking.append(asyncio.create_task(_ask(feed, token, watcher)))
                for text in missed or ():
                    await connection.send_text(text)
        try:
            await _pass_on(connection, watcher)
        finally:
            for task in asking:
                task.cancel()


async def _pass_on(connection: WebSocket, watcher: Watcher) -> None:
    while True:
        text: str | None = _HEARTBEAT
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_S):
                text = await watcher.next()
        if text is None:
            return
        await connection.send_text(text)


async def _ask(feed: Feed, token: str, watcher: Watcher) -> None:
    watcher.give(await feed.asked(token))


def _hello(push: Push, wanted: Subscribe) -> dict[str, Any]:
    databases = {}
    for name in wanted.databases:
        feed = push.feeds.get(name)
        databases[name] = {
            "live": feed.tables if feed else [],
            "token": feed.token if feed else None,
            "trouble": feed.trouble if feed else None,
            "absent": feed.absent if feed else False,
        }
    ledger = {"trouble": push.announcements.trouble if push.announcements else None}
    return {"type": "hello", "heartbeat_s": HEARTBEAT_S, "databases": databases, "ledger": ledger}


def _same_origin(connection: WebSocket) -> bool:
    """A browser says from which page it comes; programs say nothing."""
    origin = connection.headers.get("origin")
    return origin is None or urlsplit(origin).netloc == connection.headers.get("host")
