"""Archive files: Parquet with zstd, page checksums and, in the metadata, everything needed to read the rows back.

Rows come from COPY as CSV and go back to COPY as CSV; Arrow turns them into columns and back. In COPY's CSV a null is
an empty field and an empty text is ``""``, and Arrow keeps the two apart in both directions.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dbplatform.archiving.errors import ArchiveDamaged, ArchiveNotWritten
from dbplatform.archiving.shape import Column
from dbplatform.archiving.storage import Storage
from dbplatform.errors import out_of_memory

FORMAT = 1
_METADATA_KEY = b"dbplatform"
_BLOCK = 1024 * 1024

_ARROW: dict[Storage, Any] = {
    "bool": pa.bool_(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "string": pa.string(),
    "binary": pa.binary(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", "UTC"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What the file says of itself: enough to restore it, and to rebuild the ledger's row, without the ledger."""

    archive_id: str
    name: str
    database: str
    table: str
    column: str | None
    cutoff: datetime | None
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: int
    content_hash: str
    snapshot: str
    exported_at: datetime
    backup_id: str
    where: str | None = None
    parent_id: str | None = None
    """The archive whose rows these refer to, and have left along with."""
    parent_columns: tuple[tuple[str, str], ...] = ()
    """Pairs: the column here, the column there."""

    @property
    def task(self) -> str:
        """What progress calls it: the name of the archive, with the table where its rows leave along with others."""
        return task_of(self.name, self.table if self.parent_id is not None else None)

    def as_bytes(self) -> bytes:
        document = {
            "format": FORMAT,
            "archive_id": self.archive_id,
            "name": self.name,
            "database": self.database,
            "table": self.table,
            "column": self.column,
            "cutoff": self.cutoff.isoformat() if self.cutoff is not None else None,
            "where": self.where,
            "key": list(self.key),
            "columns": [column.as_json() for column in self.columns],
            "rows": self.rows,
            "content_hash": self.content_hash,
            "snapshot": self.snapshot,
            "exported_at": self.exported_at.isoformat(),
            "backup_id": self.backup_id,
        }
        if self.parent_id is not None:
            document |= {"parent_id": self.parent_id, "parent_columns": self.parent_columns}
        return json.dumps(document, ensure_ascii=False).encode()

    @classmethod
    def read(cls, data: bytes) -> Metadata:
        """Raises ValueError or KeyError when it is not metadata of a format known here."""
        document = json.loads(data)
        if document.pop("format") != FORMAT:
            raise ValueError("it was written by another version of the format")
        return cls(
            **{
                **document,
                "cutoff": datetime.fromisoformat(document["cutoff"]) if document["cutoff"] is not None else None,
                "exported_at": datetime.fromisoformat(document["exported_at"]),
                "key": tuple(document["key"]),
                "columns": tuple(Column(**column) for column in document["columns"]),
                "parent_columns": tuple((own, its) for own, its in document.get("parent_columns", ())),
            }
        )


def task_of(name: str, child: str | None) -> str:
    """What progress calls the archive ``name``, or its rows of the table ``child``."""
    return name if child is None else f"{name}/{child}"


class ArchiveWriter:
    """Writes the rows of COPY's CSV, a block at a time, each block a row group."""

    def __init__(self, file: io.BufferedWriter, metadata: Metadata) -> None:
        self.columns = metadata.columns
        schema = pa.schema([(column.name, _ARROW[column.storage]) for column in metadata.columns])
        self._schema = schema.with_metadata({_METADATA_KEY: metadata.as_bytes()})
        self._writer = pq.ParquetWriter(
            file, self._schema, compression="zstd", compression_level=3, write_page_checksum=True
        )

    def write(self, lines: Sequence[bytes]) -> int:
        """Append the rows, one CSV record each; how many. Raises ``pyarrow.ArrowInvalid`` where one does not fit."""
        table = _parsed(lines, self.columns)
        if table.num_rows != len(lines):
            raise pa.ArrowInvalid(f"{len(lines)} rows became {table.num_rows}")
        self._writer.write_table(table.replace_schema_metadata(self._schema.metadata), row_group_size=len(lines))
        return len(lines)

    def close(self) -> None:
        self._writer.close()


@dataclass(frozen=True, slots=True)
class Block:
    """Some consecutive rows of a file; ``first`` is the place of the first of them, from 0."""

    first: int
    rows: int
    csv: bytes | memoryview
    """COPY's CSV: the row's place, then its columns."""


class ArchiveReader:
    """Reads an archive file block by block. Every error of reading becomes ``ArchiveDamaged``."""

    def __init__(self, file: BinaryIO, location: str) -> None:
        self.location = location
        with self._reading():
            self._file = pq.ParquetFile(file, page_checksum_verification=True)
            data: Mapping[bytes, bytes] = self._file.schema_arrow.metadata or {}
            self.metadata = Metadata.read(data[_METADATA_KEY])
            self.rows = int(self._file.metadata.num_rows)

    def blocks(self, *, start: int = 0) -> Iterator[Block]:
        """The blocks that hold the rows from place ``start`` on, the first perhaps with rows before it.

        The next one is read while the caller works with one, by a thread of its own.
        """
        wanted, first = [], 0
        for group in range(self._file.num_row_groups):
            rows = int(self._file.metadata.row_group(group).num_rows)
            if first + rows > start:
                wanted.append((group, first))
            first += rows
        with ThreadPoolExecutor(max_workers=1) as ahead:
            coming = None
            for group, first in wanted:
                ready, coming = coming, ahead.submit(self._block, group, first)
                if ready is not None:
                    yield ready.result()
            if coming is not None:
                yield coming.result()

    def _block(self, group: int, first: int) -> Block:
        with self._reading():
            table = self._file.read_row_group(group)
            return Block(first, table.num_rows, _csv(table, self.metadata.columns, first))

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            if out_of_memory(error):
                raise
            raise damaged(self.location, f"it cannot be read ({first_line(error)})") from error


def sha256_of(file: BinaryIO) -> str:
    """The SHA-256 of the rest of the file."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


def damaged(location: str, reason: str) -> ArchiveDamaged:
    """The error for a file that is not what was written."""
    return ArchiveDamaged(
        path=location,
        reason=reason,
        hint="No row was deleted on its word. Bring back a good copy of the file, then try again; where no row has "
        "left by it yet, removing the file lets the next run archive anew.",
    )


@contextmanager
def written(partial: Path) -> Iterator[io.BufferedWriter]:
    """A new file at ``partial``, on the disk when the block ends, gone when it raises (as far as that is possible)."""
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if isinstance(error, OSError | pa.ArrowException) and not out_of_memory(error):
            raise ArchiveNotWritten(
                path=str(partial),
                reason=first_line(error),
                hint="Make room there, or correct its rights, then archive again. Nothing was deleted.",
            ) from error
        raise


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _parsed(lines: Sequence[bytes], columns: Sequence[Column]) -> Any:
    data = b"".join(lines)
    # bytea comes as \x and hexadecimal digits: read as text first.
    types = {c.name: pa.string() if c.storage == "binary" else _ARROW[c.storage] for c in columns}
    table = pa_csv.read_csv(
        pa.BufferReader(data),
        read_options=pa_csv.ReadOptions(
            column_names=[c.name for c in columns], block_size=len(data) + 1, use_threads=False
        ),
        parse_options=pa_csv.ParseOptions(newlines_in_values=True, escape_char=False, ignore_empty_lines=False),
        convert_options=pa_csv.ConvertOptions(
            column_types=types,
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )
    for place, column in enumerate(columns):
        if column.storage == "binary":
            values = [None if v is None else bytes.fromhex(v[2:]) for v in table.column(place).to_pylist()]
            table = table.set_column(place, column.name, pa.array(values, pa.binary()))
    return table


def _csv(table: Any, columns: Sequence[Column], first: int) -> memoryview:
    for place, column in enumerate(columns):
        if column.storage == "binary":
            values = [None if v is None else "\\x" + v.hex() for v in table.column(place).to_pylist()]
            table = table.set_column(place, column.name, pa.array(values, pa.string()))
        elif column.storage == "timestamptz":
            # Arrow would look up the zone for each value.
            texts = table.column(place).cast(pa.timestamp("us")).cast(pa.string())
            table = table.set_column(place, column.name, pc.binary_join_element_wise(texts, "Z", ""))
    places = pa.array(range(first, first + table.num_rows), pa.int64())
    # By place, because a column of the table may have any name.
    numbered = pa.table([places, *table.columns], names=["place", *table.column_names])
    out = pa.BufferOutputStream()
    pa_csv.write_csv(numbered, out, pa_csv.WriteOptions(include_header=False, quoting_style="all_valid"))
    return memoryview(out.getvalue())
