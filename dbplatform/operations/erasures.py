"""Rows erased on purpose: on request, because their archive has expired, and again after every restore."""

from __future__ import annotations

from pathlib import Path

from dbplatform.archiving import erase, expire, replay
from dbplatform.archiving.apply import LOCK
from dbplatform.archiving.erase import Chosen, ErasurePlan, ErasureReport
from dbplatform.archiving.erasures import Erasure, listed
from dbplatform.archiving.expire import ExpiryReport
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.replay import ReplayReport
from dbplatform.declaration.loading import Declared
from dbplatform.operations import archives
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.postgres.clock import agreed_now, server_now
from dbplatform.postgres.connection import connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock

__all__ = ["Chosen", "ErasurePlan", "ErasureReport", "ExpiryReport", "ReplayReport"]


def plan(platform: Platform, declared: Declared, table: Relation, chosen: Chosen) -> ErasurePlan:
    """Which rows would be erased, from the table and from its archives; only reads."""
    with connect(platform.target(declared), work="archive erase plan") as connection:
        return erase.plan_erasure(connection, platform.ledger, table, chosen, database=declared.name)


def apply(
    platform: Platform, declared: Declared, table: Relation, chosen: Chosen, *, note: str | None = None
) -> list[ErasureReport]:
    """Erase them, under the writer lock; an erasure that was killed is finished first."""
    with (
        platform.writer(declared, "archive erase") as connection,
        platform.ledger.operation(declared.name, "erase") as summary,
    ):
        reports = erase.apply_erasure(
            connection,
            platform.ledger,
            table,
            chosen,
            database=declared.name,
            now=server_now(connection),
            work=_work(platform),
            note=note,
        )
        summary["erasures"] = [report.as_json() for report in reports]
        return reports


def policies_that_expire(declared: Declared, name: str | None = None) -> list[ArchivePolicy]:
    """The declared archives that say how long they are kept. Raises ``NotDeclared``, ``UnknownArchiveName``."""
    found = [policy for policy in archives.policies(declared, name) if policy.keep is not None]
    if not found:
        raise not_declared(declared, "archives with keep", "archives")
    return found


def plan_expiry(platform: Platform, declared: Declared, policy: ArchivePolicy) -> ExpiryReport:
    """Which archives of a policy are due; only reads, every file of them."""
    with connect(platform.target(declared), work="archive expire plan") as connection:
        return expire.plan_expiry(
            connection, platform.ledger, policy, database=declared.name, now=agreed_now(connection)
        )


def apply_expiry(platform: Platform, declared: Declared, policy: ArchivePolicy) -> ExpiryReport:
    """Remove the archives that are due, under the writer lock."""
    with (
        platform.writer(declared, "archive expire") as connection,
        platform.ledger.operation(declared.name, "expire") as summary,
    ):
        report = expire.apply_expiry(
            connection,
            platform.ledger,
            policy,
            database=declared.name,
            now=agreed_now(connection),
            work=_work(platform),
        )
        summary.update(report.as_json())
        return report


def unfinished(platform: Platform, declared: Declared) -> list[Erasure]:
    """What was decided and killed before its end: its rows or its files may still be there. Only reads the ledger."""
    return listed(platform.ledger, declared.name, unfinished=True)


def finish(platform: Platform, declared: Declared) -> list[ErasureReport]:
    """Do what is left of them, under the writer lock and the lock ``archive``; recorded when there is something."""
    if not unfinished(platform, declared):
        return []
    with (
        platform.writer(declared, "archive finish") as connection,
        advisory_lock(connection, LOCK),
        platform.ledger.operation(declared.name, "erase") as summary,
    ):
        reports = erase.finish(connection, platform.ledger, declared.name, work=_work(platform))
        summary["erasures"] = [report.as_json() for report in reports]
        return reports


def plan_again(platform: Platform, declared: Declared) -> ReplayReport:
    """What the database still holds of rows that were erased; everything is rolled back."""
    with connect(platform.target(declared), work="archive replay plan") as connection:
        return replay.replay(connection, platform.ledger, declared.name, dry_run=True)


def erase_again(platform: Platform, declared: Declared) -> ReplayReport:
    """Erase that again, under the writer lock: after a restore by other means."""
    with (
        platform.writer(declared, "archive replay") as connection,
        platform.ledger.operation(declared.name, "replay") as summary,
    ):
        report = replay.replay(connection, platform.ledger, declared.name)
        summary.update(report.as_json())
        return report


def _work(platform: Platform) -> Path:
    return platform.home.archives / ".uploads"
