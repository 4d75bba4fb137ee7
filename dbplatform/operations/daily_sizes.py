"""The daily look at what takes room, beside the metrics: once a day and database, into the ledger."""

from __future__ import annotations

import logging
import shutil
from dataclasses import replace

from dbplatform.capacity import sizes
from dbplatform.capacity.sizes import Sizes
from dbplatform.declaration.loading import Declared
from dbplatform.errors import CannotConnect
from dbplatform.monitoring import collect
from dbplatform.monitoring.metrics import Metrics
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import AutocommitConnection, ServerRefused, SessionLost, Target

#: Sizes of thousands of files may take longer than a look at the statistics views.
_STATEMENT_TIMEOUT_MS = 30_000
_LOCAL = ("localhost", "127.0.0.1", "::1")

_log = logging.getLogger(__name__)


def keep_when_due(platform: Platform, declared: Declared, target: Target, metrics: Metrics) -> None:
    """Keep the sizes of today, unless they are there. What stands in the way is logged: there is a next look."""
    if not sizes.is_due(platform.ledger, declared.name, now=metrics.at):
        return
    try:
        read(platform, declared, target, metrics)
    except (ServerRefused, SessionLost, CannotConnect) as error:
        _log.warning("%s: the sizes of today were not kept: %s", declared.name, error)


def read(platform: Platform, declared: Declared, target: Target, metrics: Metrics) -> Sizes:
    """Read the sizes now, and keep them where those of today are not there. ``metrics`` are of the same time."""
    with collect.session(target, statement_timeout_ms=_STATEMENT_TIMEOUT_MS) as connection:
        found = sizes.read_sizes(connection, at=metrics.at)
        disk = _disk(declared, connection, found, metrics)
    found = replace(found, sequences=_sequences(metrics), disk=disk)
    sizes.keep(platform.ledger, declared.name, found)
    return found


def _sequences(metrics: Metrics) -> dict[str, tuple[int, int]]:
    """Last value and end of those nearest to it; of one that counts downwards both are turned."""
    known = {}
    for one in metrics.worst.get("sequences", ()):
        if "end" in one:
            last, end = int(one["last"]), int(one["end"])
            known[str(one["name"])] = (last, end) if last <= end else (-last, -end)
    return known


def _disk(
    declared: Declared, connection: AutocommitConnection, found: Sizes, metrics: Metrics
) -> tuple[int, int] | None:
    """What is used, and the size: as declared, else asked where the server runs on this machine."""
    policy = declared.database.capacity
    if policy is not None and policy.disk is not None:
        wal = metrics.values.get("wal_bytes")
        if found.server_bytes is None:
            return None
        return found.server_bytes + (round(wal.value) if wal else 0), policy.disk
    folder, host = found.data_directory, connection.info.host
    # Only where the server runs on this machine is it a folder of this machine.
    if folder is None or not (host.startswith("/") or host in _LOCAL):
        return None
    try:
        usage = shutil.disk_usage(folder)
    except OSError:
        return None
    # What only root may fill is not there for the server.
    return usage.total - usage.free, usage.total
