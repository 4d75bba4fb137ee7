"""What the ledger knows of each partition: the witness of its rows, and the answers of the checks that read them."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, insert, literal, select, text
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.orm import Session

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityFailedRow, QualityResult
from dbplatform.ledger.quality_partitions import QualityPartition
from dbplatform.quality.unchanged.witness import Witness

_FORGET = text("""
    update ledger.quality_partition
    set answers = answers - array(select jsonb_object_keys(answers) except select unnest(cast(:names as text[])))
    where database = :database and table_name = :table
      and exists (select from jsonb_object_keys(answers) as kept(name) where name <> all (cast(:names as text[])))
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one check found in one partition."""

    fingerprint: str
    values: tuple[str | None, ...]
    """Counts, sums and moments, as text."""
    own: int | None
    """What the check asked on its own: rows that repeat, or have no counterpart."""
    failed: int
    reference: Witness | None = None
    """The table that it refers to."""
    result_id: int | None = None
    first: int = 1
    kept: int = 0
    """Where its failing rows are: so many of that result, from that ordinal on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """One partition."""

    witness: Witness
    answers: dict[str, Answer]
    read_at: datetime


def load(ledger: Ledger, database: str, table: str, *, names: Collection[str]) -> dict[str, Known]:
    """What is known of the partitions of a table, by their names: of the checks with these names."""
    with ledger.session() as session:
        return {row.partition: _known(row, names) for row in session.scalars(_of(database, table))}


def forget(session: Session, database: str, table: str, *, but: Collection[str]) -> None:
    """Remove the answers of all checks but those with these names; the witnesses stay."""
    session.execute(_FORGET, {"database": database, "table": table, "names": list(but)})


def save(session: Session, database: str, table: str, known: dict[str, Known], *, existing: Collection[str]) -> None:
    """Keep what is known now; partitions that do not exist any more are forgotten."""
    gone = delete(QualityPartition).where(
        QualityPartition.database == database,
        QualityPartition.table_name == table,
        QualityPartition.partition.not_in(list(existing)),
    )
    session.execute(gone)
    rows = [
        {
            "database": database,
            "table_name": table,
            "partition": partition,
            "witness": asdict(one.witness),
            "answers": {name: asdict(answer) for name, answer in one.answers.items()},
            "read_at": one.read_at,
        }
        for partition, one in sorted(known.items())
    ]
    if rows:
        statement = upsert(QualityPartition)
        changes = {name: statement.excluded[name] for name in ("witness", "answers", "read_at")}
        keys = ["database", "table_name", "partition"]
        session.execute(statement.on_conflict_do_update(index_elements=keys, set_=changes), rows)


def take_over_rows(
    session: Session, answer: Answer, into: QualityResult, *, key: tuple[str, ...], most: int
) -> Answer | None:
    """Copy the kept failing rows of an earlier result behind those of ``into``, at most so many.

    None, and nothing is copied, where they are not all kept (any more), or are known by another key: then they must be
    read.
    """
    if answer.result_id is None or answer.kept < min(answer.failed, most):
        return None
    earlier = session.get(QualityResult, answer.result_id)
    if earlier is None or tuple(earlier.key_columns) != key:
        return None
    theirs = (
        QualityFailedRow.result_id == answer.result_id,
        QualityFailedRow.ordinal >= answer.first,
        QualityFailedRow.ordinal < answer.first + answer.kept,
    )
    there = session.scalar(select(func.count()).select_from(QualityFailedRow).where(*theirs))
    if there != answer.kept:
        return None
    number = min(answer.kept, most)
    place = into.kept_rows + 1
    rows = select(literal(into.id), QualityFailedRow.ordinal - answer.first + place, QualityFailedRow.row).where(
        *theirs, QualityFailedRow.ordinal < answer.first + number
    )
    session.execute(insert(QualityFailedRow).from_select(["result_id", "ordinal", "row"], rows))
    into.kept_rows += number
    into.key_columns, into.value_columns = list(earlier.key_columns), list(earlier.value_columns)
    return replace(answer, result_id=into.id, first=place, kept=number)


def oldest(known: Iterable[Known]) -> datetime | None:
    """When the first of them was read."""
    return min((one.read_at for one in known), default=None)


def _of(database: str, table: str) -> Select[QualityPartition]:
    return select(QualityPartition).where(QualityPartition.database == database, QualityPartition.table_name == table)


def _known(row: QualityPartition, names: Collection[str]) -> Known:
    return Known(
        witness=Witness(**row.witness),
        answers={name: _answer(document) for name, document in row.answers.items() if name in names},
        read_at=row.read_at,
    )


def _answer(document: dict[str, Any]) -> Answer:
    reference = document["reference"]
    parsed = {"values": tuple(document["values"]), "reference": None if reference is None else Witness(**reference)}
    return Answer(**(document | parsed))
