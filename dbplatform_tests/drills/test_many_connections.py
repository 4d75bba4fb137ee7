"""Clients that connect and say nothing, in numbers: each gets the right answer when it asks, and memory is bounded."""

from __future__ import annotations

import asyncio
import resource
from collections import Counter
from collections.abc import Iterator

import pytest

from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.serving import Served, serving
from dbplatform_tests.installation import small_project

_DECLARATION = "type: dbplatform.ManagedDatabase\nattributes: {name: shop, migrations: {}}\n"
_ASK = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n"
_KB_EACH = 32


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("many")
    with small_project(folder, _DECLARATION, "create table t ();") as project, serving(project) as service:
        yield service


@pytest.mark.parametrize("number", cases(200, 2_000, sample={200}))
def test_idle_connections_cost_little_and_each_is_answered(service: Served, number: int) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 8_192), hard))
    before = service.resident_kb
    answers, during = asyncio.run(_held(service, number))
    assert answers == {b"HTTP/1.1 200 OK": number}
    assert during - before < number * _KB_EACH, f"{(during - before) / number:.1f} kB each"


async def _held(service: Served, number: int) -> tuple[Counter[bytes], int]:
    """Connect so often and say nothing, then ask on every connection; the first lines, and the memory in between."""
    port = int(service.address.rpartition(":")[2])
    connections = [await asyncio.open_connection("127.0.0.1", port) for _ in range(number)]
    # One that is answered after all of them were accepted.
    _, other = await _asked(*await asyncio.open_connection("127.0.0.1", port))
    assert other == b"HTTP/1.1 200 OK"
    during = service.resident_kb
    found: Counter[bytes] = Counter()
    for start in range(0, number, 100):  # within the rate of one client
        for _, line in await asyncio.gather(*(_asked(*one) for one in connections[start : start + 100])):
            found[line] += 1
    return found, during


async def _asked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[bytes, bytes]:
    while True:
        writer.write(_ASK)
        answer = await reader.read()
        line = answer.partition(b"\r\n")[0]
        if not line.startswith(b"HTTP/1.1 429"):
            writer.close()
            return answer, line
        # Asked too often: as the answer says, a moment later.
        wait = next(part for part in answer.lower().split(b"\r\n") if part.startswith(b"retry-after"))
        await asyncio.sleep(float(wait.partition(b":")[2]))
        writer.close()
        reader, writer = await asyncio.open_connection(*writer.get_extra_info("peername"))


def test_a_head_that_does_not_end_is_refused_at_its_bound(service: Served) -> None:
    async def endless() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(service.address.rpartition(":")[2]))
        writer.write(b"GET / HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 20_000)
        return (await reader.read()).partition(b"\r\n")[0]

    assert asyncio.run(endless()) == b"HTTP/1.1 400 Bad Request"
