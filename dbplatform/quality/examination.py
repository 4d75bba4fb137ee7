"""The examination of one table: its checks are run in one snapshot, which stays open to read what they found."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from psycopg import sql

from dbplatform.errors import UsageError
from dbplatform.postgres.catalog import require_table
from dbplatform.postgres.connection import AutocommitConnection, SnapshotConnection, snapshot
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.by_partition import ByPartition
from dbplatform.quality.checks.base import Check, one_row
from dbplatform.quality.masks import Masks, draw_salt
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import TableResult
from dbplatform.quality.run import Run
from dbplatform.quality.sampling import SampledRelation
from dbplatform.quality.ways import TableWays

_LIMIT = """
    select set_config('statement_timeout', least(nullif(setting::bigint, 0), %s)::text, true)
    from pg_settings where name = 'statement_timeout'
"""


class UnknownCheck(UsageError):
    """The table {table} has no check named {name!r}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """A table that has been checked, its snapshot still open: its failing rows can be read as they were counted."""

    connection: SnapshotConnection
    relation: Relation
    checks: tuple[Check, ...]
    result: TableResult
    at: datetime
    """The moment of the snapshot, by the server's clock."""
    masks: Masks = field(default_factory=Masks)
    """Those of all tables of the database."""
    key_of: Relation | None = None
    """The table whose key names the rows, where that is another: of a partition, its whole."""
    by_partition: ByPartition | None = None
    """What was found partition by partition, and taken over from an earlier run."""
    samples: Mapping[str, SampledRelation] = field(default_factory=dict)
    """What the checks that were judged by a sample have read, by their names."""

    @property
    def by_source(self) -> tuple[Examination, ...]:
        """The same of the checks that were answered over the whole table, and of those of each sample."""
        answered = self.by_partition.answered if self.by_partition is not None else ()
        whole = tuple(check for check in self.checks if check.name not in answered and check.name not in self.samples)
        samples = dict.fromkeys(self.samples.values())
        return (
            replace(self, checks=whole),
            *(replace(self, relation=sample, key_of=self.relation, checks=self._of(sample)) for sample in samples),
        )

    def _of(self, sample: SampledRelation) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if self.samples.get(check.name) == sample)


@contextmanager
def examined(
    connection: AutocommitConnection,
    policy: TablePolicy,
    *,
    only: Collection[str] | None = None,
    statement_timeout_ms: int | None = None,
    stream: bool | None = None,
    masks: Masks | None = None,
    by_partition: ByPartition | None = None,
) -> Iterator[Examination]:
    """Run the checks of a table, or those named in ``only``; the snapshot stays open for the block.

    One read-only REPEATABLE READ transaction; ACCESS SHARE on what is read. Raises ``TableMissing``, ``UnknownCheck``
    and, when the connection breaks, ``ChecksInterrupted``. A statement over ``statement_timeout_ms`` (none: as the
    policy declares; never longer than the session's own) is an error of its check alone. ``stream`` says whether the
    columns are streamed; none: where it pays. ``masks`` are those of the whole database; none: those of this table.
    """
    checks = _chosen(policy, only)
    masks = Masks.declared([policy]) if masks is None else masks
    with snapshot(connection) as moment:
        moment.execute(_LIMIT, (statement_timeout_ms or policy.statement_timeout_ms,))
        require_table(moment, policy.table)
        if masks:
            draw_salt(moment)
        (at,) = one_row(moment, sql.SQL("select now()"))
        run = Run(moment, policy, checks, stream, masks, by_partition)
        yield Examination(
            connection=moment,
            relation=policy.table,
            checks=checks,
            result=run.result(),
            at=at,
            masks=masks,
            by_partition=by_partition,
            samples=run.samples,
        )


def explained(
    connection: AutocommitConnection,
    policy: TablePolicy,
    *,
    only: Collection[str] | None = None,
    stream: bool | None = None,
    by_partition: ByPartition | None = None,
) -> TableWays:
    """How each check of a table would be answered now, and why. Errors as ``examined``.

    Reads the catalog only; where ``by_partition`` must prove that rows are unchanged, their headers, too.
    """
    checks = _chosen(policy, only)
    with snapshot(connection) as moment:
        require_table(moment, policy.table)
        return Run(moment, policy, checks, stream, Masks.declared([policy]), by_partition).ways()


def _chosen(policy: TablePolicy, only: Collection[str] | None) -> tuple[Check, ...]:
    if only is None:
        return tuple(policy.checks)
    for name in only:
        if policy.check(name) is None:
            known = ", ".join(check.name for check in policy.checks)
            raise UnknownCheck(table=policy.table.words, name=name, hint=f"It has: {known}.")
    return tuple(check for check in policy.checks if check.name in only)
