"""The service that brings the WAL of a declared database's server into the archive, until it is ended."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dbplatform.backups.physical.receive import Receiver
from dbplatform.backups.physical.server import Server
from dbplatform.backups.physical.slot import slot_name
from dbplatform.backups.physical.spool import ship
from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
from dbplatform.operations.platform import Platform
from dbplatform.operations.wal import archive_of, physical_of, remember_seat, spool_of
from dbplatform.postgres.programs import find_programs

_SHIP_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivePlan:
    """How the WAL of one server comes into the archive."""

    server: Server
    slot: str | None
    """None: the server puts its WAL down by itself."""

    @property
    def words(self) -> str:
        if self.slot is None:
            return f"bring the WAL that {self.server.place} puts down into the archive"
        return f"receive the WAL of {self.server.place} by the replication slot {self.slot}"

    def as_json(self) -> dict[str, Any]:
        return {"server": self.server.place, "system_identifier": self.server.system, "slot": self.slot}


def plan(platform: Platform, declared: Declared) -> ReceivePlan:
    """Look at the server. Raises ``NotDeclared``, and what a connection raises."""
    physical_of(declared)
    server = remember_seat(platform, declared)
    embedded = declared.database.connection.url_env is None
    return ReceivePlan(server=server, slot=None if embedded else slot_name(server.system))


def serve(
    platform: Platform,
    declared: Declared,
    *,
    tell: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Work until interrupted; what goes wrong is told, and tried again."""
    planned = plan(platform, declared)
    archive = archive_of(platform, declared, planned.server.system)
    spool = spool_of(platform, declared, planned.server.system)
    if planned.slot is not None:
        Receiver(
            target=platform.target(declared),
            spool=spool,
            archive=archive,
            ledger=platform.ledger,
            programs=find_programs(),
            limit_bytes=physical_of(declared).max_slot_wal_mb << 20,
            tell=tell,
            sleep=sleep,
        ).run()
    told = None
    while True:
        try:
            ship(spool, archive)
        except WorkError as error:
            if error.message != told:
                told = error.message
                tell(f"{error.message} {error.hint or ''}".strip())
        sleep(_SHIP_S)
