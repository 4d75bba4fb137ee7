"""What those who watch the live tables of a system are told of a change."""

from __future__ import annotations

import asyncio

import psycopg

from dbplatform.live import events
from dbplatform.live.events import Rows
from dbplatform.live.install import apply_live
from dbplatform.postgres.connection import connect, connect_to_listen
from dbplatform_tests.systems.conftest import System


def told(system: System, change: str) -> dict[str, Rows]:
    """Make its declared tables live, make the change, and read what is new, by table."""
    with connect(system.target, work="test") as connection:
        apply_live(connection, system.declaration.live, database=system.name)
    return asyncio.run(_told(system, change))


async def _told(system: System, change: str) -> dict[str, Rows]:
    policies = {str(policy.table): policy for policy in system.declaration.live}
    async with connect_to_listen(system.target, work="test") as connection:
        before = await events.now(connection)
        assert before is not None
        with psycopg.connect(system.target.url, autocommit=True) as session:
            session.execute(change.encode())
        reading = await events.read(connection, before)
        found = {}
        for one in reading.changes:
            policy = policies[one.relation]
            key = await events.key_of(connection, policy.table)
            found[one.relation] = await events.read_rows(connection, policy, key, one)
        return found
