"""Clients of /ws in a process of their own: each notes when a message reached it, by the clock of this machine.

    python benchmarks/live/clients.py URL NUMBER FILE

Says ``ready`` when all of them watch. For each line with the id of a row it answers ``seen`` when all have that row. At
the end of its input it writes what came into FILE: for each message when it came, to which client, and its rows.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from array import array
from contextlib import AsyncExitStack
from pathlib import Path

from websockets.asyncio.client import ClientConnection, connect

#: The service lets one address begin 50 requests a second.
PAUSE_S = 0.025
SUBSCRIBE = '{"type": "subscribe", "databases": ["shop"]}'


class Clients:
    """All of them, and what each has heard."""

    def __init__(self, number: int) -> None:
        self.texts: dict[str, int] = {}
        self.rows: list[list[int]] = []
        self.at, self.who, self.what = array("d"), array("i"), array("i")
        self.newest = [0] * number
        self.more = asyncio.Event()

    async def listen(self, number: int, connection: ClientConnection) -> None:
        """Note every change that this client hears."""
        async for text in connection:
            at = time.time()
            assert isinstance(text, str)
            if (place := self.texts.get(text)) is None:
                place = self._read(text)
            self.at.append(at)
            self.who.append(number)
            self.what.append(place)
            self.newest[number] = max([self.newest[number], *self.rows[place][-1:]])
            self.more.set()

    def _read(self, text: str) -> int:
        """Read once what comes to all."""
        message = json.loads(text)
        tables = message.get("tables", [])
        assert message["type"] != "reset"
        assert not any(table["many"] for table in tables)
        place = self.texts[text] = len(self.rows)
        self.rows.append(sorted(row["id"] for table in tables for row in table["rows"]))
        return place

    async def all_have(self, row: int) -> None:
        """Wait until each client has heard of that row."""
        while min(self.newest) < row:
            self.more.clear()
            await self.more.wait()

    def write(self, file: Path) -> None:
        """Only what told of rows."""
        heard = [(at, who, what) for at, who, what in zip(self.at, self.who, self.what, strict=True) if self.rows[what]]
        file.write_text(json.dumps({"rows": self.rows, "heard": heard}))


async def begun(connection: ClientConnection) -> None:
    """Watch, and wait until the service follows the database."""
    await connection.send(SUBSCRIBE)
    message = json.loads(await connection.recv())
    trouble = message["databases"]["shop"]["trouble"]
    while trouble is not None:
        trouble = json.loads(await connection.recv()).get("trouble", trouble)


def lost(task: asyncio.Task[None]) -> None:
    """A client that ends before it was told to is the end of the measurement."""
    if not task.cancelled():
        print(f"a client has ended: {task.exception()}", flush=True)
        os._exit(1)


async def main(url: str, number: int, file: Path) -> None:
    clients = Clients(number)
    async with AsyncExitStack() as open_ones:
        connections = []
        for _ in range(number):
            connections.append(await open_ones.enter_async_context(connect(url, ping_interval=None)))
            await begun(connections[-1])
            await asyncio.sleep(PAUSE_S)
        listening = [asyncio.create_task(clients.listen(*one)) for one in enumerate(connections)]
        for task in listening:
            task.add_done_callback(lost)
        print("ready", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            await clients.all_have(int(line))
            print("seen", flush=True)
        for task in listening:
            task.cancel()
        await asyncio.gather(*listening, return_exceptions=True)
    clients.write(file)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
