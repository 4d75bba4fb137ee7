"""The kept failing rows of one check as a file: CSV that the server writes, or Parquet.

Every value is the text that PostgreSQL writes for it, for one column may hold numbers and ``NaN``; null is an empty
field in CSV, an empty text is ``""``. What is masked came masked into the ledger. Rows are streamed: memory does not
grow with them. A file has its name only when it is whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from psycopg import sql

from dbplatform.errors import UsageError, WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import connect, snapshot

_ROWS_PER_GROUP = 20_000

_RESULTS = """
    select r.id, r.run_id, r.table_name, r.status, r.failed_rows, r.kept_rows,
           array(select jsonb_array_elements_text(r.key_columns || r.value_columns)),
           array(select jsonb_array_elements_text(r.masked_columns)), r.rows_removed_at::text
    from ledger.quality_result r join ledger.quality_run q using (run_id)
    where q.database = %(database)s and r.name = %(check)s
      and (%(table)s::text is null or r.table_name = %(table)s)
      and (%(run)s::text is null or r.run_id = %(run)s)
    order by q.started_at desc, q.run_id, r.id
    limit 100
"""
_FIELDS = """
    select array(select jsonb_object_keys(row)) from ledger.quality_failed_row where result_id = %s limit 1
"""


class NoSuchResult(UsageError):
    """There is no result of the check {check!r} of {database}{place}."""


class SeveralTables(UsageError):
    """The check {check!r} of {database} is declared on several tables: {tables}."""


class NotWritten(WorkError):
    """The file {path} could not be written: {reason}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptRows:
    """The failing rows of one check in one run, as the ledger has them. ``failed_rows`` is exact, none: not counted."""

    result_id: int
    run_id: str
    table: str
    check: str
    status: str
    failed_rows: int | None
    kept_rows: int
    columns: tuple[str, ...]
    masked: tuple[str, ...]
    removed_at: str | None

    def as_json(self) -> dict[str, Any]:
        """What is known of them, without the rows."""
        return {
            "run_id": self.run_id,
            "table": self.table,
            "check": self.check,
            "status": self.status,
            "failed_rows": self.failed_rows,
            "kept_rows": self.kept_rows,
            "columns": list(self.columns),
            "masked_columns": list(self.masked),
            "rows_removed_at": self.removed_at,
        }


def kept_rows(
    ledger: Ledger, database: str, check: str, *, table: str | None = None, run_id: str | None = None
) -> KeptRows:
    """The rows of a check in a run, by default the newest that had it. ``table`` is ``schema.table``.

    Raises ``NoSuchResult``, and ``SeveralTables`` where the name is that of checks of several tables.
    """
    with connect(ledger.target, work="failed rows") as connection:
        asked = {"database": database, "check": check, "table": table, "run": run_id}
        found = connection.execute(_RESULTS, asked).fetchall()
        if not found:
            raise NoSuchResult(
                check=check,
                database=database,
                place=f" in the run {run_id}" if run_id else "",
                hint=f"See what ran: dbplatform report show {database}.",
            )
        tables = sorted({row[2] for row in found})
        if len(tables) > 1:
            raise SeveralTables(
                check=check, database=database, tables=", ".join(tables), hint=f"Choose one: --table {tables[0]}."
            )
        id_, run, of, status, failed, kept, columns, masked, removed = found[0]
        if kept and not columns:  # written before the ledger knew the order
            row = connection.execute(_FIELDS, (id_,)).fetchone()
            columns = row[0] if row else []
        return KeptRows(
            result_id=id_,
            run_id=run,
            table=of,
            check=check,
            status=status,
            failed_rows=failed,
            kept_rows=kept,
            columns=tuple(columns),
            masked=tuple(masked),
            removed_at=removed,
        )


def rows_of(ledger: Ledger, kept: KeptRows, *, limit: int) -> list[dict[str, Any]]:
    """The first of the rows, as the ledger has them."""
    with connect(ledger.target, work="failed rows") as connection:
        found = connection.execute(
            "select row from ledger.quality_failed_row where result_id = %s order by ordinal limit %s",
            (kept.result_id, limit),
        ).fetchall()
    return [{name: row[name] for name in kept.columns if name in row} for (row,) in found]


def write_csv(ledger: Ledger, kept: KeptRows, out: BinaryIO) -> None:
    """All rows as CSV with a header, as COPY writes it."""
    with connect(ledger.target, work="failed rows") as connection:
        statement = sql.SQL("copy ({}) to stdout (format csv, header true)").format(_query(kept))
        with connection.cursor().copy(statement) as copy:
            for block in copy:
                out.write(block)


def write_parquet(ledger: Ledger, kept: KeptRows, out: BinaryIO) -> None:
    """All rows as Parquet: a column of texts for each field."""
    import pyarrow as pa  # not for a command that writes none
    import pyarrow.parquet as pq

    schema = pa.schema([pa.field(name, pa.string()) for name in kept.columns])
    with (
        connect(ledger.target, work="failed rows") as connection,
        snapshot(connection) as moment,
        pq.ParquetWriter(out, schema, compression="zstd") as writer,
        moment.cursor(name="failed_rows") as cursor,
    ):
        cursor.itersize = _ROWS_PER_GROUP
        cursor.execute(_query(kept))
        while rows := cursor.fetchmany(_ROWS_PER_GROUP):
            columns = [pa.array([row[place] for row in rows], pa.string()) for place in range(len(kept.columns))]
            writer.write_table(pa.table(columns, schema=schema))


@contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that has its name once it is whole; nothing of it stays after an error. Raises ``NotWritten``."""
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with unfinished.open("wb") as out:
            yield out
        unfinished.replace(path)
    except OSError as error:
        raise NotWritten(path=path, reason=error.strerror, hint="Choose another file by --output.") from error
    finally:
        unfinished.unlink(missing_ok=True)


def _query(kept: KeptRows) -> sql.Composed:
    fields = [sql.SQL("row ->> {} as {}").format(sql.Literal(name), sql.Identifier(name)) for name in kept.columns]
    return sql.SQL("select {} from ledger.quality_failed_row where result_id = {} order by ordinal").format(
        sql.SQL(", ").join(fields), sql.Literal(kept.result_id)
    )
