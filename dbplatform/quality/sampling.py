"""A part of a table's rows in place of all, where somebody asked for that: ``TABLESAMPLE ... REPEATABLE``.

The seed is that of the day (UTC, by the server's clock): whoever asks again on that day, of a table that has not
changed, sees the same rows, so that failing rows can be read as they were counted and a mended row is looked at again;
on the next day others are looked at. What a sample finds is told of the sample and never extrapolated. A number of rows
becomes a share by the statistics of the planner, so it is met only about; of a table that has no more it is not taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from psycopg import sql

from dbplatform.postgres.connection import SnapshotConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks.sample import Method, Sample
from dbplatform.quality.streaming.cost import table_of

_ALL = Decimal(100)


@dataclass(frozen=True, slots=True)
class SampledRelation(Relation):
    """Some rows of a table, wherever it is read by its ``identifier``; by its name it is the table itself."""

    percent: Decimal
    method: Method
    seed: int

    @property
    def identifier(self) -> sql.Composable:
        """The table with its TABLESAMPLE clause."""
        return sql.SQL("{} tablesample {} ({}) repeatable ({})").format(
            sql.Identifier(self.schema, self.name),
            sql.SQL("bernoulli" if self.method == "bernoulli" else "system"),
            sql.Literal(self.percent),
            sql.Literal(self.seed),
        )

    @property
    def words_of_sample(self) -> str:
        """``1% of the table's blocks``; ``about`` where a number of rows was asked for."""
        return f"{self.percent:f}% of the table's {'blocks' if self.method == 'system' else 'rows'}"


def sampled(
    connection: SnapshotConnection, relation: Relation, wanted: Mapping[str, Sample], *, seed: int
) -> dict[str, SampledRelation]:
    """What is read for each check, by its name, of which a sample is wanted. Reads the catalog.

    Raises ``psycopg.Error``.
    """
    found = {}
    rows = 0
    if any(sample.rows is not None for sample in wanted.values()):
        rows = table_of(connection, relation).rows
    for name, sample in wanted.items():
        percent = sample.percent
        if percent is None:
            assert sample.rows is not None
            if 0 < rows <= sample.rows:
                continue  # the table has no more
            percent = min(_ALL, _rounded(_ALL * sample.rows / rows)) if rows else _ALL
        found[name] = SampledRelation(relation.schema, relation.name, percent, sample.method, seed)
    return found


def _rounded(percent: Decimal) -> Decimal:
    """With three digits that say something."""
    return percent.quantize(Decimal(1).scaleb(percent.adjusted() - 2)).normalize()
