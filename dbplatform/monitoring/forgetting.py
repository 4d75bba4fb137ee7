"""The end of what was measured of a database that nobody declares any more."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from sqlalchemy import delete, func, inspect, select, tuple_

from dbplatform.ledger.capacity import CapacityDay
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import (
    MetricCollection,
    MetricHistory,
    SettingSeen,
    StatementCounts,
    StatementText,
    StatementWindow,
)

_KEPT: Final[Mapping[str, Any]] = MappingProxyType(
    {
        "collections": MetricCollection,
        "steps": MetricHistory,
        "days of sizes": CapacityDay,
        "settings": SettingSeen,
        "statement windows": StatementWindow,
        "statement counts": StatementCounts,
        "statement texts": StatementText,
    }
)
_BATCH: Final = 5_000


def kept(ledger: Ledger, database: str) -> dict[str, int]:
    """How many rows the ledger has of what was measured of a database, by what they are; nothing of none."""
    with ledger.session() as session:
        counts = {
            what: session.scalars(select(func.count()).where(model.database == database)).one()
            for what, model in _KEPT.items()
        }
    return {what: count for what, count in counts.items() if count}


def forget(ledger: Ledger, database: str) -> None:
    """Let go of it all, 5,000 rows in a transaction; may be run twice, and killed anywhere."""
    for model in _KEPT.values():
        key = tuple_(*inspect(model).primary_key)
        some = select(*inspect(model).primary_key).where(model.database == database).limit(_BATCH)
        gone = _BATCH
        while gone == _BATCH:
            with ledger.session() as session:
                gone = len(session.execute(delete(model).where(key.in_(some)).returning(model.database)).all())
