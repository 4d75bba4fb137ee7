"""Rows as text: how two rows, or two sets of rows, are told to be equal.

A row is compared by ``row(...)::text``, the text of all of its columns: equal text, equal values, down to a numeric's
scale and a float's last bit. A set of rows is compared by its number and two 64-bit sums over the rows' texts, as
``catalog.content_hash`` does for a whole table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from psycopg import sql

from dbplatform.postgres.connection import AnyConnection

#: What decides the text of a value beyond what every session has fixed, and that no row is hidden in silence.
_EXACT = {"lc_monetary": "C", "xmloption": "content", "row_security": "off"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RowSums:
    """The number of rows and two sums over their texts; sums of parts add up to the sum of the whole."""

    rows: int = 0
    first: Decimal = Decimal(0)
    second: Decimal = Decimal(0)

    def __add__(self, other: RowSums) -> RowSums:
        return RowSums(rows=self.rows + other.rows, first=self.first + other.first, second=self.second + other.second)

    @property
    def hash(self) -> str:
        """32 hexadecimal digits: those of ``catalog.content_hash`` over a table that holds exactly these rows."""
        return hashlib.sha256(repr((self.rows, self.first, self.second)).encode()).hexdigest()[:32]


def be_exact(connection: AnyConnection) -> None:
    """Make this transaction write every value in its one exact form, and refuse to read behind row security."""
    _set(connection, _EXACT)


def _set(connection: AnyConnection, settings: Mapping[str, str]) -> None:
    """Set them for the transaction."""
    changes = [sql.SQL("set_config({}, {}, true)").format(name, value) for name, value in settings.items()]
    connection.execute(sql.SQL("select {}").format(sql.SQL(", ").join(changes)))


def be_durable(connection: AnyConnection) -> None:
    """Let this transaction be on the disk when it has committed, also where the database would not wait for that."""
    connection.execute(
        "select set_config('synchronous_commit', 'on', true) where current_setting('synchronous_commit') = 'off'"
    )


def find_by_key(connection: AnyConnection) -> None:
    """Make this transaction find each row of a large table by its key.

    A batch is some thousand rows of it. The planner may guess that so many are found faster by reading the whole
    table, or that their number is worth compiling the statement, for each batch again.
    """
    _set(connection, dict.fromkeys(("enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"), "off"))


def row_text(names: Iterable[str], alias: str) -> sql.Composed:
    """The text of the row ``alias``, its columns in the order given."""
    return sql.SQL("{}::text").format(_row(names, alias))


def _row(names: Iterable[str], alias: str) -> sql.Composed:
    columns = sql.SQL(", ").join(sql.SQL("{}.{}").format(sql.Identifier(alias), sql.Identifier(n)) for n in names)
    return sql.SQL("row({})").format(columns)


def same_row(names: Sequence[str], left: str, right: str) -> sql.Composed:
    """Whether two rows have the same text: a boolean expression.

    The same bytes make the same text, and need not be written as text to be compared; both rows are of the same types.
    """
    return sql.SQL("(record_image_eq({}, {}) or {} = {})").format(
        _row(names, left), _row(names, right), row_text(names, left), row_text(names, right)
    )


def sums_of(text: sql.Composable, where: sql.Composable) -> sql.Composed:
    """Three columns of an aggregate query: the fields of ``RowSums`` over the rows that fulfil ``where``.

    Both are columns of a subquery that ends with OFFSET 0: else the planner would have the text made for each sum.
    """
    return sql.SQL(
        "count(*) filter (where {where}),"
        " coalesce(sum(hashtextextended({text}, 0)) filter (where {where}), 0),"
        " coalesce(sum(hashtextextended({text}, 1)) filter (where {where}), 0)"
    ).format(text=text, where=where)


def same_key(key: Sequence[str], left: str, right: str) -> sql.Composed:
    """Whether two rows have the same key: a boolean expression."""
    return same_columns([(name, name) for name in key], left, right)


def same_columns(pairs: Iterable[tuple[str, str]], left: str, right: str) -> sql.Composed:
    """Whether each first column of the row ``left`` equals the second one of ``right``: a boolean expression."""
    return sql.SQL(" and ").join(
        sql.SQL("{}.{} = {}.{}").format(
            sql.Identifier(left), sql.Identifier(own), sql.Identifier(right), sql.Identifier(its)
        )
        for own, its in pairs
    )
