"""Who works on a backup now: session locks in the ledger's database, which go with the process that holds them.

What the ledger calls ``running`` while nobody holds its lock was killed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AnyConnection, connect
from dbplatform.postgres.locks import lock_key

# The newest of these came with PostgreSQL 17; an older server has fewer.
_UNHURRIED = """
    select set_config(name, '0', false) from pg_settings
    where name in ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout',
                   'idle_session_timeout')
"""


@contextmanager
def held(ledger: Ledger, what: str, *, shared: bool = False) -> Iterator[bool]:
    """Try to hold the lock ``what`` for the block, without waiting; yields whether it is held.

    ``shared`` holders, who only read, tolerate each other. The lock ends with its session, whatever happens.
    """
    with connect(ledger.target, work=f"holds {what}") as connection:
        unhurried(connection)
        take = "select pg_try_advisory_lock_shared(%s)" if shared else "select pg_try_advisory_lock(%s)"
        row = connection.execute(take, (lock_key(what),)).fetchone()
        yield row is not None and bool(row[0])


def unhurried(connection: AnyConnection) -> None:
    """Let no time limit that is set for a user or a database end this session."""
    connection.execute(_UNHURRIED)
