"""Clients in numbers, who say nothing, watch and hear nothing, or talk junk: each gets the right answer, and memory is
bounded.
"""

from __future__ import annotations

import asyncio
import json
import resource
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.serving import Served, serving
from dbplatform_tests.installation import small_project

_DECLARATION = "type: dbplatform.ManagedDatabase\nattributes: {name: shop, migrations: {}}\n"
_ASK = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
_KB_EACH = 32
_KB_EACH_WATCHER = 96
_JUNK = 1_000_000
#: One address may ask 500 times at once, in all that is tried here.
_OF_ONE_ADDRESS = 200


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("many")
    with small_project(folder, _DECLARATION, "create table t ();") as project, serving(project) as service:
        yield service


def test_a_megabyte_of_junk_on_ws_is_refused_and_is_not_kept(service: Served) -> None:
    number = 100
    before = service.resident_kb
    codes = asyncio.run(_talked_junk(service, number))
    # TCP may reset a connection that is closed while more comes, before its last word was read (1006).
    assert set(codes) <= {1009, 1006}
    assert codes[1009] > number / 2
    assert service.resident_kb - before < number * _JUNK / 1024 / 4
    assert httpx.get(f"{service.address}/readyz").status_code == 200


async def _talked_junk(service: Served, number: int) -> Counter[int]:
    async def one(word: str | bytes | list[str]) -> int:
        async with connect(f"ws{service.address.removeprefix('http')}/ws", max_size=None) as connection:
            with suppress(ConnectionClosed):
                await connection.send(word)
            await connection.wait_closed()
            assert connection.close_code is not None
            return connection.close_code

    # As one frame of text, of bytes, and in pieces of which each is small enough.
    words = ("x" * _JUNK, b"\xff" * _JUNK, ["x" * 10_000] * (_JUNK // 10_000))
    return Counter(await asyncio.gather(*(one(words[place % 3]) for place in range(number))))


@pytest.mark.parametrize("number", cases(2_000, sample=()))
def test_idle_watchers_cost_little_and_each_hears_what_happens(service: Served, number: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    before = service.resident_kb
    heard, during = asyncio.run(_watched(service, number))
    assert heard == {"state": number}
    assert during - before < number * _KB_EACH_WATCHER, f"{(during - before) / number:.1f} kB each"


@pytest.mark.parametrize("number", cases(200, 2_000, sample={200}))
def test_idle_connections_cost_little_and_each_is_answered(service: Served, number: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    before = service.resident_kb
    answers, during = asyncio.run(_held(service, number))
    assert answers == {b"HTTP/1.1 200 OK": number}
    assert during - before < number * _KB_EACH, f"{(during - before) / number:.1f} kB each"


async def _watched(service: Served, number: int) -> tuple[Counter[str], int]:
    """Watch so often, then have somebody silence alerts; what each hears, and the memory in between."""
    port = service.address.rpartition(":")[2]
    watching: list[ClientConnection] = []
    for place in range(number):
        connection = await connect(f"ws://127.0.0.1:{port}/ws", local_addr=_address(place), open_timeout=60)
        await connection.send(json.dumps({"type": "subscribe", "databases": ["shop"]}))
        assert json.loads(await connection.recv())["type"] == "hello"
        watching.append(connection)
    during = service.resident_kb
    silence = {"database": "shop", "length": "1h", "reason": "everybody is to hear of it"}
    async with httpx.AsyncClient(timeout=60) as client:
        assert (await client.post(f"{service.address}/api/v1/silences", json=silence)).status_code == 201
    heard = Counter(await asyncio.gather(*(_told(connection) for connection in watching)))
    await asyncio.gather(*(connection.close() for connection in watching))
    return heard, during


async def _told(connection: ClientConnection) -> str:
    while True:
        message = json.loads(await connection.recv())
        if message["type"] != "heartbeat":
            return str(message["type"])


async def _held(service: Served, number: int) -> tuple[Counter[bytes], int]:
    """Connect so often and say nothing, then ask on every connection; the first lines, and the memory in between."""
    port = int(service.address.rpartition(":")[2])
    connections = [
        await asyncio.open_connection("127.0.0.1", port, local_addr=_address(place)) for place in range(number)
    ]
    # One that is answered after all of them were accepted.
    assert await _asked(*await asyncio.open_connection("127.0.0.1", port)) == b"HTTP/1.1 200 OK"
    during = service.resident_kb
    return Counter(await asyncio.gather(*(_asked(*one) for one in connections))), during


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(_ASK)
    answer = await reader.read()
    writer.close()
    return answer.partition(b"\r\n")[0]


def _address(place: int) -> tuple[str, int]:
    """Where a client comes from: another address of this machine before one asks too often."""
    return f"127.0.0.{2 + place // _OF_ONE_ADDRESS}", 0


def test_a_head_that_does_not_end_is_refused_at_its_bound(service: Served) -> None:
    async def endless() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(service.address.rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 20_000)
        return (await reader.read()).partition(b"\r\n")[0]

    assert asyncio.run(endless()) == b"HTTP/1.1 400 Bad Request"
