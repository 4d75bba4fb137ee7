"""The status service is killed by SIGKILL while somebody watches: they notice, and miss nothing when it is back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from dbplatform_tests.drills.serving import Served, serving
from dbplatform_tests.installation import Installation, small_project
from dbplatform_tests.web.test_push import Watching

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
  live: [{table: items}]
"""


@pytest.mark.drill
def test_who_watches_a_service_that_is_killed_notices_and_misses_nothing_when_it_is_back(tmp_path: Path) -> None:
    with small_project(tmp_path, _DECLARATION, "create table items (id int primary key);") as shop:
        shop.json("migrate", "apply", "shop")
        shop.json("live", "apply", "shop")
        with serving(shop) as service:
            token = asyncio.run(killed(shop, service))
        write(shop, 2)
        with serving(shop) as service:
            assert asyncio.run(missed(service, token)) == [2]


async def killed(shop: Installation, service: Served) -> str:
    """The token of what was told before the service was killed."""
    async with watching(service, {}) as client:
        await client.begun()
        await asyncio.to_thread(write, shop, 1)
        told = await client.next("changes")
        assert [row["id"] for row in told["tables"][0]["rows"]] == [1]
        os.kill(service.pid, signal.SIGKILL)
        with pytest.raises(ConnectionClosed):
            await client.next("changes")
        return str(told["token"])


async def missed(service: Served, token: str) -> list[int]:
    async with watching(service, {"shop": token}) as client:
        return [row["id"] for row in (await client.next("changes"))["tables"][0]["rows"]]


@asynccontextmanager
async def watching(service: Served, since: dict[str, str]) -> AsyncIterator[Watching]:
    async with connect(f"ws{service.address.removeprefix('http')}/ws") as connection:
        await connection.send(json.dumps({"type": "subscribe", "databases": ["shop"], "since": since}))
        yield Watching(connection)


def write(shop: Installation, number: int) -> None:
    with shop.connect("shop") as connection:
        connection.execute("insert into items values (%s)", (number,))
