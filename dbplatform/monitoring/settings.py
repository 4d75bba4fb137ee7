"""When a setting of a database or its server changed: seen by the watch, which asks for all of them at each look.

Kept is the first look and every change after it. Settings that may hold a secret are never read: commands, connection
strings, texts of extensions (``postgres/sql/metrics_server.sql``).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import distinct_on
from sqlalchemy.orm import Session

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import SettingSeen


def record_settings(ledger: Ledger, database: str, settings: Mapping[str, str], *, at: datetime) -> int:
    """Keep what differs from the look before; how many settings do. Of the first look none does. One transaction."""
    with ledger.session() as session:
        known = _known(session, database)
        before = {name: one.value for name, one in known.items() if one.value is not None}
        changed = [name for name in sorted(before.keys() | settings) if before.get(name) != settings.get(name)]
        for name in changed:
            session.add(
                SettingSeen(
                    database=database,
                    name=name,
                    at=at,
                    first=not known,
                    before=before.get(name),
                    value=settings.get(name),
                )
            )
    return len(changed) if known else 0


def changed_settings(session: Session, database: str, *, until: datetime, within: timedelta, most: int) -> list[
    SettingSeen
]:  # fmt: skip
    """The settings that were seen to change in that time before ``until``, the newest first."""
    statement = (
        select(SettingSeen)
        .where(
            SettingSeen.database == database,
            SettingSeen.at <= until,
            SettingSeen.at > until - within,
            SettingSeen.first.is_(False),
        )
        .order_by(SettingSeen.at.desc(), SettingSeen.name)
        .limit(most)
    )
    return list(session.scalars(statement))


def _known(session: Session, database: str) -> dict[str, SettingSeen]:
    """By setting, what was seen last."""
    statement = (
        select(SettingSeen)
        .ext(distinct_on(SettingSeen.name))
        .where(SettingSeen.database == database)
        .order_by(SettingSeen.name, SettingSeen.at.desc())
    )
    return {one.name: one for one in session.scalars(statement)}
