"""The state of every declared database, for a list. Looks, and starts nothing."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.exc import SQLAlchemyError

from dbplatform.declaration.freeze import Freeze
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError, VariableNotSet
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityRun
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import connect

_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class DatabaseState:
    """One database: whether it can be reached, and what its newest checks said."""

    name: str
    state: str
    """``ready``, ``not created``, ``server stopped``, or why it cannot be reached."""
    verdict: str | None
    checked_at: datetime | None
    file: str
    owners: tuple[str, ...]
    freeze: Freeze | None
    """The freeze in force now."""

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state,
            "verdict": self.verdict,
            "checked_at": self.checked_at,
            "file": self.file,
            "owners": list(self.owners),
            "freeze": self.freeze.as_json() if self.freeze else None,
        }


def overview(platform: Platform) -> list[DatabaseState]:
    """Every declared database that holds, by name. An unreachable one hides no other, and holds up few."""
    verdicts, now = _verdicts(platform), datetime.now(UTC)
    databases = platform.declarations.databases
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="list") as pool:
        reached = list(pool.map(lambda declared: _state(platform, declared), databases))
    states = []
    for declared, state in zip(databases, reached, strict=True):
        verdict, checked_at = verdicts.get(declared.name, (None, None))
        states.append(
            DatabaseState(
                name=declared.name,
                state=state,
                verdict=verdict,
                checked_at=checked_at,
                file=declared.document.shown,
                owners=tuple(declared.database.owners),
                freeze=declared.database.frozen(now),
            )
        )
    return states


def _state(platform: Platform, declared: Declared) -> str:
    try:
        target = platform.existing_target(declared)
    except VariableNotSet as error:
        return f"{error.fields['variable']} is not set"
    if target is None:
        return "not created" if platform.server.status().running else "server stopped"
    try:
        with connect(target, work="list"):
            return "ready"
    except PlatformError as error:
        return error.message


def _verdicts(platform: Platform) -> dict[str, tuple[str | None, datetime | None]]:
    """What the ledger knows; nothing where there is none yet, or it does not answer."""
    ledger = platform.existing_ledger()
    if ledger is None:
        return {}
    try:
        return _newest(ledger)
    except SQLAlchemyError:
        return {}


def _newest(ledger: Ledger) -> dict[str, tuple[str | None, datetime | None]]:
    newest = (
        select(QualityRun.database, QualityRun.verdict, QualityRun.finished_at)
        .where(QualityRun.finished_at.is_not(None))
        .order_by(QualityRun.database, QualityRun.finished_at.desc())
        .ext(distinct_on(QualityRun.database))
    )
    with ledger.session() as session:
        return {name: (verdict, at) for name, verdict, at in session.execute(newest)}
