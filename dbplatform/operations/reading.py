"""Where a declared database is read: on its replica while that keeps up, else on the primary."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from dbplatform.declaration.loading import Declared
from dbplatform.errors import VariableNotSet
from dbplatform.operations.platform import Platform
from dbplatform.postgres import replicas
from dbplatform.postgres.connection import Target
from dbplatform.postgres.pools import DatabasePool, pool_settings
from dbplatform.postgres.replicas import Read

A = TypeVar("A")

_log = logging.getLogger(__name__)


def read(platform: Platform, declared: Declared, work: Callable[[Target], A]) -> Read[A]:
    """Do the reading where it may be done; on the primary once more, when the replica fails in between.

    ``work`` only reads, and may be called twice. Says in the log why a declared replica was not read; one whose
    variable is not set is not there. Raises what ``work`` raises on the primary.
    """
    primary, wait = platform.target(declared), declared.database.connection.replica_lag.timedelta
    try:
        found = replicas.read(primary, replica_of(declared), work, wait=wait)
    except VariableNotSet as not_there:
        found = Read(value=work(primary), from_replica=False, reason=not_there.message)
    if found.reason is not None:
        _log.warning("%s was read on its primary, not on the replica: %s", declared.name, found.reason)
    return found


def replica_of(declared: Declared) -> Target | None:
    """The replica that is declared. Raises ``VariableNotSet``."""
    url = declared.replica_url_from_environment()
    return None if url is None else Target(f"the replica of {declared.name}", url)


def open_pool(platform: Platform, declared: Declared, *, on_replica: bool = False) -> DatabasePool:
    """A pool of the declared size on the database, or on its replica where that is there and keeps up."""
    connection, primary = declared.database.connection, platform.target(declared)
    if on_replica and (replica := _keeping_up(declared, primary)) is not None:
        return DatabasePool(replica, pool_settings(connection.environment, connection.replica_pool or connection.pool))
    return DatabasePool(primary, pool_settings(connection.environment, connection.pool))


def _keeping_up(declared: Declared, primary: Target) -> Target | None:
    """The replica, where a pool may be opened on it; why one that is declared may not be read is in the log."""
    reason: str | None
    try:
        replica = replica_of(declared)
    except VariableNotSet as not_there:
        replica, reason = None, not_there.message
    else:
        if replica is None:
            return None
        reason = replicas.reason_not_to_read(replica, primary, wait=declared.database.connection.replica_lag.timedelta)
    if reason is not None:
        _log.warning("the pool of %s is on its primary, not on the replica: %s", declared.name, reason)
        return None
    return replica
