"""Archives rows: export, read back, delete; each step is recorded, so that a killed run goes on where it stopped.

    begun ──> exported ──> verified ──> deleted ──> (restored)
    state      ledger       ledger       ledger

``begun`` is a row of ``dbplatform.archive_progress`` alone: no row has left and the ledger lists nothing, so the next
run removes what was written and starts anew. From ``exported`` on, the next run first finishes that file.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from dbplatform.archiving import catalogue, records
from dbplatform.archiving.along import ChildFile
from dbplatform.archiving.catalogue import ArchiveEntry
from dbplatform.archiving.delete import delete_rows
from dbplatform.archiving.errors import ArchiveMovedOn
from dbplatform.archiving.export import export, file_name, place_for
from dbplatform.archiving.kept import exists
from dbplatform.archiving.pace import GENTLE, Pace, Throttle
from dbplatform.archiving.plan import plan_archive
from dbplatform.archiving.points import reached
from dbplatform.archiving.policy import ArchivePolicy
from dbplatform.archiving.proof import ProvenSnapshot, Recheck, require_proof
from dbplatform.archiving.shape import TableShape, read_shape
from dbplatform.archiving.staging import Loaded, staging
from dbplatform.archiving.verify import read_back
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.locks import advisory_lock
from dbplatform.storage.place import Place

LOCK = "archive"
#: A file up to this size is loaded once: its rows stay in the temporary table where they were compared until they leave
#: the table. A larger one is loaded again, block by block, and needs no room on the server.
MOST_KEPT_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ArchiveReport:
    """What ``archive apply`` did for one policy: the files that it finished, and what it left alone.

    By partition the files are verified, and no row has left.
    """

    name: str
    table: str
    cutoff: datetime | None
    archives: tuple[ArchiveEntry, ...]
    """None, one, or two: an interrupted one that was finished, and a new one; each before those that left along. By
    partition: one for each."""
    uncovered: int
    """Matching rows that were not exported, because the proven backup does not hold them."""
    stopped: str | None = None
    """Why the run ended before all rows had left; the next one goes on."""

    @property
    def deleted(self) -> int:
        """How many rows have left the table by the archives of this report."""
        return sum(archive.deleted_rows for archive in self._own)

    @property
    def along(self) -> dict[str, int]:
        """How many rows of other tables have left along with them."""
        children = [archive for archive in self.archives if archive.parent_id is not None]
        tables = sorted({archive.table for archive in children})
        return {table: sum(one.deleted_rows for one in children if one.table == table) for table in tables}

    @property
    def written(self) -> int:
        """How many rows its files hold."""
        return sum(archive.rows for archive in self.archives)

    @property
    def kept(self) -> dict[str, int]:
        """How many exported rows stayed in the table, by reason."""
        reasons = sorted({reason for archive in self._own for reason in archive.kept})
        return {reason: sum(archive.kept.get(reason, 0) for archive in self._own) for reason in reasons}

    @property
    def kept_changed(self) -> int:
        """How many exported rows stayed because they, or rows that leave along, were changed or deleted meanwhile."""
        return self.kept.get("changed", 0) + self.kept.get("gone", 0) + self.kept.get("children", 0)

    @property
    def _own(self) -> list[ArchiveEntry]:
        return [archive for archive in self.archives if archive.parent_id is None]

    def as_json(self) -> dict[str, Any]:
        """One policy of ``archive apply --json``; ``archives`` as in ``archive list``."""
        return {
            "name": self.name,
            "table": self.table,
            "cutoff": self.cutoff.isoformat() if self.cutoff is not None else None,
            "deleted_rows": self.deleted,
            "deleted_along": self.along,
            "kept": self.kept,
            "uncovered": self.uncovered,
            "stopped": self.stopped,
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
    begins: Callable[[], object] = lambda: None,
    throttle: Throttle = GENTLE,
    wait_ms: int = 600_000,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
    time_of_day: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> ArchiveReport:
    """Move the rows that are as declared at ``now`` (aware) and proven into a file of ``place``.

    Under the advisory lock ``archive``. An interrupted archive of the same name is finished first. The proof must be of
    a backup that holds the whole table; it is asked for again (``recheck``) right before rows are deleted, and judged
    for every row. Raises ``NotProven``, what ``plan_archive`` raises, ``ArchiveNotWritten``, ``StorageFailed``,
    ``ReadBackDiffers``, ``ArchiveDamaged``, ``ArchiveTableChanged``, ``ReplicaBehind`` and ``LockNotAcquired``: in
    every case each row is in the table, or in a file that the ledger lists, and never counted twice. Can be run again
    at any time. Outside the window of the ``throttle``, by ``time_of_day``, and once its budget is spent, it ends where
    it stands. ``begins`` is called before the first change, and not where there is nothing to do.
    """
    with advisory_lock(connection, LOCK, wait_ms=wait_ms, sleep=sleep):
        proof = require_proof(connection, proof, table=policy.table, database=database)
        records.ensure_records(connection)
        clean_up(connection, ledger, database, policy.name, place)
        work = _Work(
            connection=connection,
            ledger=ledger,
            database=database,
            recheck=recheck,
            pace=Pace(throttle=throttle, sleep=sleep, clock=clock, now=time_of_day),
        )
        archives: list[ArchiveEntry] = []
        for entry in catalogue.unfinished(ledger, database, policy.name):
            begins()
            archives += _finish(work, entry)
        if work.pace.stops() is not None:
            return _report(policy, archives, work.pace.stopped)
        plan = plan_archive(connection, policy, now=now, proof=proof)
        uncovered = plan.rows - (plan.covered_rows or 0)
        if plan.covered_rows:
            begins()
            ids = {node.table: uuid.uuid4() for node in plan.tree.nodes}
            for node in plan.tree.nodes:
                parent_id = ids[plan.tree.nodes[node.parent].table] if node.parent is not None else None
                records.begin(connection, ids[node.table], policy.name, str(node.table), parent_id)
            reached(policy.name, "begin", 0, plan.covered_rows)
            exported, uncovered = export(connection, plan, place, ids, database=database, proof=proof, now=now)
            for table in ids.keys() - {one.table for one in exported}:
                records.forget(connection, ids[table])
            if exported:
                entry = catalogue.record(ledger, database, plan, exported, backup_id=proof.backup_id, now=now)
                reached(policy.name, "record", 0, entry.rows)
                archives += _finish(work, entry)
    return _report(policy, archives, work.pace.stopped, cutoff=plan.cutoff, uncovered=uncovered)


def _report(
    policy: ArchivePolicy,
    archives: Sequence[ArchiveEntry],
    stopped: str | None,
    *,
    cutoff: datetime | None = None,
    uncovered: int = 0,
) -> ArchiveReport:
    return ArchiveReport(
        name=policy.name,
        table=str(policy.table),
        cutoff=cutoff,
        archives=tuple(archives),
        uncovered=uncovered,
        stopped=stopped,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Work:
    connection: AutocommitConnection
    ledger: Ledger
    database: str
    recheck: Recheck
    pace: Pace


def _finish(work: _Work, entry: ArchiveEntry) -> list[ArchiveEntry]:
    """Bring a listed file, and those whose rows leave along, from where they stand to ``deleted``.

    Where the pace ends before, they are ``verified``, with as many rows deleted as have left by now.
    """
    if work.pace.stops() is not None:
        return _as_they_stand(work, [entry, *catalogue.along(work.ledger, entry)])
    connection, table = work.connection, Relation.parse(entry.table)
    members = [entry, *catalogue.along(work.ledger, entry)]
    shapes = {member.id: read_shape(connection, Relation.parse(member.table)) for member in members}
    with ExitStack() as stack:
        loaded = _verify(work, stack, members, shapes)
        reached(entry.name, "verify", entry.rows, entry.rows)
        proof = require_proof(connection, work.recheck(), table=table, database=work.database)
        # A database that was set back to before the export has forgotten it: all of its rows are there again.
        for member in members:
            records.begin(connection, member.id, member.name, member.table, member.parent_id)
        stopped = delete_rows(
            connection,
            shapes[entry.id],
            entry.id,
            entry.location,
            sha256=entry.sha256,
            proof=proof,
            pace=work.pace,
            loaded=loaded,
            children=[
                ChildFile(
                    archive_id=member.id,
                    parent_id=member.parent_id,
                    shape=shapes[member.id],
                    columns=member.parent_columns,
                    location=member.location,
                    sha256=member.sha256,
                )
                for member in members
                if member.parent_id is not None
            ],
        )
        if stopped is not None:
            return _as_they_stand(work, [entry, *catalogue.along(work.ledger, entry)])
    reached(entry.name, "finish", entry.rows, entry.rows)
    outcomes = {member.id: _outcome(connection, member) for member in members}
    done = catalogue.mark_deleted(work.ledger, outcomes, backup_id=proof.backup_id)
    reached(entry.name, "done", entry.rows, entry.rows)
    return done


def _verify(
    work: _Work, stack: ExitStack, members: Sequence[ArchiveEntry], shapes: Mapping[uuid.UUID, TableShape]
) -> Loaded | None:
    """Read back what was exported; the rows of the first of them where they stay, until the ``stack`` is left."""
    loaded = None
    for place, member in enumerate(members):
        if member.status == "exported":
            shape, into = shapes[member.id], None
            if place == 0 and member.bytes <= MOST_KEPT_BYTES:
                number = len(members)  # the others are those of the children
                into = stack.enter_context(
                    staging(work.connection, shape.table, shape.names, by_place=False, number=number)
                )
            found = read_back(
                work.connection,
                shape,
                member.location,
                sha256=member.sha256,
                rows=member.rows,
                content_hash=member.content_hash,
                into=into,
            )
            loaded = found or loaded
            catalogue.mark_verified(work.ledger, member.id)
    return loaded


def _as_they_stand(work: _Work, entries: Sequence[ArchiveEntry]) -> list[ArchiveEntry]:
    stands = [records.read_progress(work.connection, entry.id) for entry in entries]
    return [
        replace(entry, deleted_rows=stand.deleted if stand is not None else 0)
        for entry, stand in zip(entries, stands, strict=True)
    ]


def _outcome(connection: AutocommitConnection, entry: ArchiveEntry) -> tuple[int, dict[str, int]]:
    """How many rows have left and why the others stayed, each of them accounted for."""
    stand, kept = records.read_progress(connection, entry.id), records.kept_counts(connection, entry.id)
    assert stand is not None
    if stand.position != entry.rows or stand.deleted + sum(kept.values()) != entry.rows:
        raise ArchiveMovedOn(
            archive=str(entry.id),
            expected=entry.rows,
            actual=stand.position,
            hint=f"The database accounts for {stand.deleted + sum(kept.values())} rows: archive again.",
        )
    return stand.deleted, kept


def clean_up(connection: AutocommitConnection, ledger: Ledger, database: str, name: str, place: Place) -> None:
    """Forget archives by which no row has left: those that a killed export has begun, and those whose file is gone."""
    for entry in catalogue.unfinished(ledger, database, name):
        stand = records.read_progress(connection, entry.id)
        if stand is not None and stand.position > 0:
            continue
        members = [entry, *catalogue.along(ledger, entry)]
        if not all(exists(member.location, connection) for member in members):
            catalogue.forget(ledger, [member.id for member in members])
    for archive_id, child in records.untouched(connection, name):
        if not catalogue.known(ledger, archive_id):
            at = place_for(place, Relation.parse(child) if child is not None else None)
            at.discard(file_name(database, name, archive_id, child))
            records.forget(connection, archive_id)
