"""Data-quality checks of a declared database, their results and failing rows kept in the ledger."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations import reviews
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.operations.reading import read
from dbplatform.postgres import catalog
from dbplatform.postgres.catalog import Column, require_table
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality import record
from dbplatform.quality.checks.base import Separable
from dbplatform.quality.engine import check_table as check_and_record
from dbplatform.quality.engine import partitions_of, run_table
from dbplatform.quality.examination import explained
from dbplatform.quality.export import KeptRows
from dbplatform.quality.export import kept_rows as kept_rows_of
from dbplatform.quality.history import remembering
from dbplatform.quality.masks import MaskedColumnMissing, Masks
from dbplatform.quality.policy import FailedRowsPolicy, TablePolicy
from dbplatform.quality.results import TableResult
from dbplatform.quality.retention import remove_old_rows
from dbplatform.quality.suggest import suggestions
from dbplatform.quality.suggest.suggestions import TableSuggestions
from dbplatform.quality.ways import TableWays

__all__ = [
    "Column", "check_table", "columns_of", "explain", "finish_run", "kept_rows", "policies", "row_count_of", "suggest",
]  # fmt: skip


class UnknownTable(UsageError):
    """The database {database} declares no checks on the table {table}."""


class UnknownCheck(UsageError):
    """No check {check!r} is declared on {place}."""


def policies(
    declared: Declared, *, table: str | None = None, check: str | None = None
) -> list[tuple[TablePolicy, set[str] | None]]:
    """The declared tables with the names of the checks to run (None: all of them), by a table's and a check's name."""
    declared_tables = declared.database.quality
    if not declared_tables:
        raise not_declared(declared, "checks", "quality")
    chosen = [p for p in declared_tables if table is None or p.table == Relation.parse(table)]
    if not chosen:
        raise UnknownTable(
            database=declared.name,
            table=table,
            hint=f"Declared are: {', '.join(p.table.words for p in declared_tables)}.",
            file=declared.document.shown,
            line=declared.document.line_of(("attributes", "quality")),
        )
    if check is None:
        return [(policy, None) for policy in chosen]
    having = [policy for policy in chosen if check in {c.name for c in policy.checks}]
    if not having:
        raise UnknownCheck(
            check=check,
            place=chosen[0].table.words if table else declared.name,
            hint=f"Declared are: {', '.join(c.name for policy in chosen for c in policy.checks)}.",
        )
    return [(policy, {check}) for policy in having]


def check_table(
    platform: Platform,
    declared: Declared,
    relation: Relation,
    *,
    run_id: str,
    only: Collection[str] | None = None,
    record: bool = True,
    full: bool = False,
) -> TableResult:
    """Run the checks of one table on one snapshot, on the replica where one is declared and keeps up.

    With ``record`` the results and failing rows go to the ledger; without, the past that checks compare with is read
    from it all the same. A table whose rows may be moved aside is read on the
    primary, where that happens. ``full``: partitions are read although they have not changed.
    """
    index, policy = next((i, p) for i, p in enumerate(declared.database.quality) if p.table == relation)
    masks, bound = Masks.declared(declared.database.quality), kept_policy(declared).keep

    def work(target: Target) -> TableResult:
        if not record:
            with connect(target, work="check") as connection:
                remembered = remembering(platform.ledger, declared.name, policy)
                return run_table(connection, remembered, only=only, masks=masks, dry_run=True)
        return check_and_record(
            target, platform.ledger, declared.name, run_id, policy, only, masks=masks, bound=bound, full=full
        )

    with declared.written_at("quality", index, "table"), _masks_written(declared):
        if any(isinstance(check, Separable) and check.quarantine is not None for check in policy.checks):
            return work(platform.target_as(declared, "migrate"))
        return read(platform, declared, work).value


def kept_rows(
    platform: Platform, declared: Declared, check: str, *, table: str | None = None, run_id: str | None = None
) -> KeptRows:
    """The failing rows of a check that the ledger keeps, of the newest run or of ``run_id``; see ``quality.export``."""
    relation = None if table is None else str(Relation.parse(table))
    return kept_rows_of(platform.ledger, declared.name, check, table=relation, run_id=run_id)


def explain(
    platform: Platform,
    declared: Declared,
    policy: TablePolicy,
    *,
    only: Collection[str] | None = None,
    full: bool = False,
) -> TableWays:
    """How each check of a table would be answered now, and which partitions would be read; see ``explained``."""
    by_partition = None
    if policy.unchanged is not None:
        by_partition = partitions_of(platform.ledger, declared.name, policy, full=full)
    with connect(platform.target(declared), work="check --explain") as connection:
        return explained(connection, policy, only=only, by_partition=by_partition)


def suggest(platform: Platform, declared: Declared, *, table: str | None = None) -> list[TableSuggestions]:
    """Checks for one table, or for each of the database, but those that are declared; on the replica if it keeps up.

    Only reads.
    """
    chosen = {policy.table: policy for policy in declared.database.quality}
    masks = Masks.declared(declared.database.quality)

    def work(target: Target) -> list[TableSuggestions]:
        with connect(target, work="check --suggest") as connection:
            if table is None:
                return suggestions.suggested_for_all(connection, declared=chosen, masks=masks)
            relation = Relation.parse(table)
            return [suggestions.suggested(connection, relation, declared=chosen.get(relation), masks=masks)]

    return read(platform, declared, work).value


@contextmanager
def _masks_written(declared: Declared) -> Iterator[None]:
    """Give a mask that is wrong the place where it is declared, whichever table was checked."""
    try:
        yield
    except MaskedColumnMissing as missing:
        tables = [policy.table for policy in declared.database.quality]
        with declared.written_at("quality", tables.index(missing.fields["relation"]), "mask"):
            raise


def kept_policy(declared: Declared) -> FailedRowsPolicy:
    """How many failing rows are kept, and for how long: as declared, else by default."""
    return declared.database.failed_rows or FailedRowsPolicy()


def finish_run(platform: Platform, declared: Declared, run_id: str) -> str:
    """Close a run of checks; returns its verdict, derived from the recorded results.

    Failing rows of older runs that are kept no longer leave the ledger, so many that no run waits long for it.
    """
    verdict = record.finish_run(platform.ledger, run_id)
    remove_old_rows(
        platform.ledger,
        declared.name,
        kept_policy(declared),
        checks=[(str(policy.table), check.name) for policy in declared.database.quality for check in policy.checks],
        unreviewed=[one.run_id for one in reviews.waiting(platform.ledger, declared.name)],
        now=datetime.now(UTC),
    )
    return verdict


def columns_of(platform: Platform, declared: Declared, relation: Relation) -> list[Column]:
    """The columns of a table as the catalog has them now."""
    with connect(platform.target(declared), work="columns") as connection:
        return catalog.columns(connection, relation)


def row_count_of(platform: Platform, declared: Declared, relation: Relation) -> int:
    """The exact number of rows of a table."""
    with connect(platform.target(declared), work="count") as connection:
        require_table(connection, relation)
        return catalog.row_count(connection, relation)
