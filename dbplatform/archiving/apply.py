"""Archives rows: export, read back, delete; each step is recorded, so that a killed run goes on where it stopped.

    begun ──> exported ──> verified ──> deleted ──> (restored)
    state      ledger       ledger       ledger

``begun`` is a row of ``dbplatform.archive_progress`` alone: no row has left and the ledger lists nothing, so the next
run removes what was written and starts anew. From ``exported`` on, the next run first finishes that file.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from dbplatform.archiving import catalogue, records
from dbplatform.archiving.catalogue import ArchiveEntry
from dbplatform.archiving.delete import delete_rows
from dbplatform.archiving.errors import ArchiveMovedOn
from dbplatform.archiving.export import export, file_name
from dbplatform.archiving.kept import exists
from dbplatform.archiving.pace import GENTLE, Throttle
from dbplatform.archiving.plan import plan_archive
from dbplatform.archiving.points import reached
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.proof import ProvenSnapshot, Recheck, require_proof
from dbplatform.archiving.shape import read_shape
from dbplatform.archiving.verify import read_back
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock
from dbplatform.storage.place import Place

LOCK = "archive"


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveReport:
    """What ``archive apply`` did for one policy: the files that it finished, and what it left alone."""

    name: str
    table: str
    cutoff: datetime | None
    archives: tuple[ArchiveEntry, ...]
    """None, one, or two: an interrupted one that was finished, and a new one."""
    uncovered: int
    """Matching rows that were not exported, because the proven backup does not hold them."""

    @property
    def deleted(self) -> int:
        """How many rows have left the table by the archives of this report."""
        return sum(archive.deleted_rows for archive in self.archives)

    @property
    def kept(self) -> dict[str, int]:
        """How many exported rows stayed in the table, by reason."""
        reasons = sorted({reason for archive in self.archives for reason in archive.kept})
        return {reason: sum(archive.kept.get(reason, 0) for archive in self.archives) for reason in reasons}

    @property
    def kept_changed(self) -> int:
        """How many exported rows were changed or deleted by others before their turn came."""
        return self.kept.get("changed", 0) + self.kept.get("gone", 0)

    def as_json(self) -> dict[str, Any]:
        """One policy of ``archive apply --json``; ``archives`` as in ``archive list``."""
        return {
            "name": self.name,
            "table": self.table,
            "cutoff": self.cutoff.isoformat() if self.cutoff is not None else None,
            "deleted_rows": self.deleted,
            "kept": self.kept,
            "uncovered": self.uncovered,
            "archives": [archive.as_json() for archive in self.archives],
        }


def apply_archive(
    connection: AutocommitConnection,
    policy: ArchivePolicy,
    ledger: Ledger,
    place: Place,
    *,
    database: str,
    proof: ProvenSnapshot | None,
    recheck: Recheck,
    now: datetime,
    throttle: Throttle = GENTLE,
    wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> ArchiveReport:
    """Move the rows that are as declared at ``now`` (aware) and proven into a file of ``place``.

    Under the advisory lock ``archive``. An interrupted archive of the same name is finished first. The proof must be of
    a backup that holds the whole table; it is asked for again (``recheck``) right before rows are deleted, and judged
    for every row. Raises ``NotProven``, what ``plan_archive`` raises, ``ArchiveNotWritten``, ``StorageFailed``,
    ``ReadBackDiffers``, ``ArchiveDamaged``, ``ArchiveTableChanged``, ``ReplicaBehind`` and ``LockNotAcquired``: in
    every case each row is in the table, or in a file that the ledger lists, and never counted twice. Can be run again
    at any time.
    """
    with advisory_lock(connection, LOCK, wait_ms=wait_ms, sleep=sleep):
        proof = require_proof(connection, proof, table=policy.table, database=database)
        records.ensure_records(connection)
        _clean_up(connection, ledger, database, policy.name, place)
        work = _Work(
            connection=connection,
            ledger=ledger,
            database=database,
            recheck=recheck,
            throttle=throttle,
            sleep=sleep,
            clock=clock,
        )
        archives = [_finish(work, entry) for entry in catalogue.unfinished(ledger, database, policy.name)]
        plan = plan_archive(connection, policy, now=now, proof=proof)
        uncovered = plan.rows - (plan.covered_rows or 0)
        if plan.covered_rows:
            archive_id = uuid.uuid4()
            records.begin(connection, archive_id, policy.name, str(policy.table))
            reached(policy.name, "begin", 0, plan.covered_rows)
            exported = export(connection, plan, place, archive_id, database=database, proof=proof, now=now)
            if isinstance(exported, int):
                records.forget(connection, archive_id)
                uncovered = exported
            else:
                uncovered = exported.uncovered
                entry = catalogue.record(ledger, database, plan, exported, backup_id=proof.backup_id, now=now)
                reached(policy.name, "record", 0, entry.rows)
                archives.append(_finish(work, entry))
    return ArchiveReport(
        name=policy.name,
        table=str(policy.table),
        cutoff=plan.cutoff,
        archives=tuple(archives),
        uncovered=uncovered,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    connection: AutocommitConnection
    ledger: Ledger
    database: str
    recheck: Recheck
    throttle: Throttle
    sleep: Callable[[float], None]
    clock: Callable[[], float]


def _finish(work: _Work, entry: ArchiveEntry) -> ArchiveEntry:
    """Bring a listed file from where it stands to ``deleted``."""
    connection, table = work.connection, Relation.parse(entry.table)
    policy_name = entry.name
    shape = read_shape(connection, table)
    if entry.status == "exported":
        read_back(
            connection,
            shape,
            entry.location,
            sha256=entry.sha256,
            rows=entry.rows,
            content_hash=entry.content_hash,
        )
        catalogue.mark_verified(work.ledger, entry.id)
    reached(policy_name, "verify", entry.rows, entry.rows)
    proof = require_proof(connection, work.recheck(), table=table, database=work.database)
    # A database that was set back to before the export has forgotten it: all of its rows are there again.
    records.begin(connection, entry.id, entry.name, entry.table)
    delete_rows(
        connection,
        shape,
        entry.id,
        entry.location,
        sha256=entry.sha256,
        proof=proof,
        throttle=work.throttle,
        sleep=work.sleep,
        clock=work.clock,
    )
    reached(policy_name, "finish", entry.rows, entry.rows)
    stand, kept = records.read_progress(connection, entry.id), records.kept_counts(connection, entry.id)
    assert stand is not None
    if stand.position != entry.rows or stand.deleted + sum(kept.values()) != entry.rows:
        raise ArchiveMovedOn(
            archive=str(entry.id),
            expected=entry.rows,
            actual=stand.position,
            hint=f"The database accounts for {stand.deleted + sum(kept.values())} rows: archive again.",
        )
    done = catalogue.mark_deleted(work.ledger, entry.id, deleted=stand.deleted, kept=kept, backup_id=proof.backup_id)
    reached(policy_name, "done", entry.rows, entry.rows)
    return done


def _clean_up(connection: AutocommitConnection, ledger: Ledger, database: str, name: str, place: Place) -> None:
    """Forget archives by which no row has left: those that a killed export has begun, and those whose file is gone."""
    for entry in catalogue.unfinished(ledger, database, name):
        stand = records.read_progress(connection, entry.id)
        if (stand is None or stand.position == 0) and not exists(entry.location, connection):
            catalogue.forget(ledger, entry.id)
    for archive_id in records.untouched(connection, name):
        if not catalogue.known(ledger, archive_id):
            place.discard(file_name(database, name, archive_id))
            records.forget(connection, archive_id)
