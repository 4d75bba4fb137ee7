"""Rows of any kind into the CSV that COPY reads, chunk by chunk, so that memory is bounded by a chunk.

Every chunk becomes columns of Arrow, and those become text in one call per chunk. What text cannot say by itself is
put into PostgreSQL's words before: bytes, durations, lists, JSON. The server then reads each value with the input
function of its column, so that any value which PostgreSQL would take as text is right for any column.

An empty string is written in quotes and NULL as nothing, which is how COPY's CSV tells them apart. In a column of
floats NaN is a number; in pandas' own columns it is what pandas says it is, a missing value.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.adapt import PyFormat, Transformer

from dbplatform.seeding.errors import RowsWrong

if TYPE_CHECKING:
    import pyarrow as pa

#: A pandas DataFrame, an Arrow table, batch or reader (whatever speaks Arrow's PyCapsule protocol, such as Polars), or
#: an iterable of rows: mappings by column, or sequences.
Rows = Any

_FIRST_ROWS = 256
_MOST_ROWS = 16384
_CHUNK_BYTES = 1 << 20
_JSON = ("json", "jsonb")
# What Arrow reads from Python exactly as PostgreSQL would; everything else goes through psycopg, value by value.
_PLAIN = frozenset((str, int, float, bool, bytes, date, datetime))
_HINT = "Make it a value that psycopg knows, or a text as PostgreSQL reads it."


@dataclass(slots=True)
class Chunker:
    """How many rows the next chunk takes, so that its text is about a megabyte, whatever the rows hold."""

    rows: int = _FIRST_ROWS

    def saw(self, rows: int, size: int) -> None:
        """Learn from a chunk."""
        self.rows = max(1, min(_MOST_ROWS, rows * _CHUNK_BYTES // max(size, 1)))


@dataclass(slots=True)
class Ascent:
    """Whether the whole numbers of one column only rise; of other columns nothing is known, which counts as no."""

    column: str
    holds: bool = True
    last: int | None = None

    def saw(self, array: pa.Array) -> None:
        """Go on with the next chunk."""
        import pyarrow as pa
        import pyarrow.compute as pc

        if not self.holds or not len(array):
            return
        if not pa.types.is_integer(array.type) or array.null_count:
            self.holds = False
            return
        rises = pc.all(pc.less(array[:-1], array[1:])).as_py() is not False
        self.holds = rises and (self.last is None or self.last < array[0].as_py())
        self.last = array[-1].as_py()


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Rows with the names of their columns; ``chunks`` can be walked through once."""

    columns: tuple[str, ...]
    chunks: Callable[[Chunker], Iterator[Sequence[Any]]]

    def texts(
        self, connection: psycopg.Connection[Any], types: Mapping[str, str], ascent: Ascent | None = None
    ) -> Iterator[tuple[memoryview, int]]:
        """CSV without a header, as COPY reads it, and how many rows it holds.

        ``types``: the type of each column of the table, by ``format_type``. ``ascent`` sees one of them.
        """
        import pyarrow as pa
        from pyarrow import csv

        writer = _Writer(connection)
        options = csv.WriteOptions(include_header=False)
        chunker = Chunker()
        for chunk in self.chunks(chunker):
            arrays = [writer.text(name, column, types[name]) for name, column in zip(self.columns, chunk, strict=True)]
            if ascent is not None:
                ascent.saw(arrays[self.columns.index(ascent.column)])
            batch = pa.RecordBatch.from_arrays(arrays, [str(i) for i in range(len(arrays))])
            sink = pa.BufferOutputStream()
            csv.write_csv(batch, sink, options)
            text = memoryview(sink.getvalue())
            chunker.saw(batch.num_rows, text.nbytes)
            yield text, batch.num_rows


def source(rows: Rows, columns: Sequence[str] | None, default: Sequence[str]) -> Source:
    """What was given, ready to be walked through. ``columns`` picks and names; ``default`` names those of sequences.

    Raises ``RowsWrong`` for what is no rows, and for a column that the rows lack.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(rows, pandas.DataFrame):
        names = _picked([str(name) for name in rows.columns], columns)
        return Source(columns=names, chunks=_of_frame(rows, names))
    if hasattr(rows, "__arrow_c_array__") or hasattr(rows, "__arrow_c_stream__"):
        return _of_arrow(rows, columns)
    if isinstance(rows, str | bytes | Mapping) or not isinstance(rows, Iterable):
        raise RowsWrong(
            f"Rows cannot be read from a {type(rows).__name__}.",
            hint="Give a DataFrame, an Arrow table, or an iterable of mappings or sequences.",
        )
    return _of_rows(iter(rows), columns, default)


def _picked(present: list[str], columns: Sequence[str] | None) -> tuple[str, ...]:
    names = tuple(present if columns is None else columns)
    twice = [name for name in names if names.count(name) > 1 or present.count(name) > 1]
    if twice:
        raise RowsWrong(f"The rows name the column {twice[0]!r} twice.", hint="Rename one.")
    missing = [name for name in names if name not in present]
    if missing:
        raise RowsWrong(
            f"The rows have no column {missing[0]!r}; they have {', '.join(present)}.", hint="Correct the columns."
        )
    return names


def _of_frame(frame: Any, names: tuple[str, ...]) -> Callable[[Chunker], Iterator[Sequence[Any]]]:
    def chunks(chunker: Chunker) -> Iterator[Sequence[Any]]:
        positions = [[str(name) for name in frame.columns].index(name) for name in names]
        start = 0
        while start < len(frame):
            end = start + chunker.rows
            yield [_of_series(frame.iloc[start:end, position]) for position in positions]
            start = end

    return chunks


def _of_series(series: Any) -> Any:
    import pyarrow as pa

    if series.dtype == object:
        return series.where(series.notna(), None).tolist()
    array = pa.array(series, from_pandas=True)
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _of_arrow(rows: Any, columns: Sequence[str] | None) -> Source:
    import pyarrow as pa

    if hasattr(rows, "__arrow_c_stream__"):
        reader = pa.RecordBatchReader.from_stream(rows)
    else:
        batch = pa.record_batch(rows)
        reader = pa.RecordBatchReader.from_batches(batch.schema, [batch])
    names = _picked(reader.schema.names, columns)
    positions = [reader.schema.get_field_index(name) for name in names]

    def chunks(chunker: Chunker) -> Iterator[Sequence[Any]]:
        for batch in reader:
            start = 0
            while start < batch.num_rows:
                part = batch.slice(start, chunker.rows)
                yield [part.column(position) for position in positions]
                start += part.num_rows

    return Source(columns=names, chunks=chunks)


def _of_rows(rows: Iterator[Any], columns: Sequence[str] | None, default: Sequence[str]) -> Source:
    first = next(rows, None)
    mapped = isinstance(first, Mapping)
    names = tuple(columns if columns is not None else first if isinstance(first, Mapping) else default)
    keys: Sequence[Any] = names if mapped else range(len(names))

    def chunks(chunker: Chunker) -> Iterator[Sequence[Any]]:
        following = chain((first,), rows) if first is not None else rows
        done = 0
        while taken := list(islice(following, chunker.rows)):
            try:
                if not mapped:
                    _check_width(taken, names)
                # Column by column, because zip(*taken) takes five times as long for thousands of rows.
                chunk = [[row[key] for row in taken] for key in keys]
            except KeyError as error:
                raise RowsWrong(f"A row has no {error}.", hint=f"Each must have {', '.join(names)}.") from error
            except (TypeError, ValueError) as error:
                raise RowsWrong(f"The rows after {done} are not of one kind: {error}.", hint=_HINT) from error
            yield chunk
            done += len(taken)

    return Source(columns=names, chunks=chunks)


def _check_width(rows: list[Any], names: tuple[str, ...]) -> None:
    widths = set(map(len, rows))
    if len(widths) > 1:
        raise ValueError(f"one has {min(widths)} values, another {max(widths)}")
    if widths != {len(names)}:
        raise RowsWrong(
            f"The rows have {widths.pop()} values for {len(names)} columns.",
            hint=f"Name their columns: columns=[...]; now they are {', '.join(names)}.",
        )


class _Writer:
    """Columns into arrays that Arrow's CSV writer writes as PostgreSQL reads them."""

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self._transformer = Transformer(connection)
        self._encoding = connection.info.encoding

    def text(self, name: str, column: Any, type_: str) -> pa.Array:
        """One column of a chunk, an Arrow array or a sequence of Python's values, for a column of this type."""
        import pyarrow as pa

        try:
            if isinstance(column, pa.Array):
                return self._of_array(column, type_)
            return self._of_values(column, type_)
        except (psycopg.ProgrammingError, pa.ArrowException, TypeError, ValueError) as error:
            raise RowsWrong(f"The column {name} holds what cannot be loaded: {error}.", hint=_HINT) from error

    def _of_values(self, values: Sequence[Any], type_: str) -> pa.Array:
        import pyarrow as pa

        if type_ in _JSON:
            return pa.array([None if value is None else _json(value) for value in values], pa.string())
        kinds = set(map(type, values))
        kinds.discard(type(None))
        if len(kinds) == 1 and kinds <= _PLAIN and (kinds != {datetime} or _same_zones(values)):
            try:
                return self._of_array(pa.array(values, pa.string() if kinds == {str} else None), type_)
            except (pa.ArrowInvalid, OverflowError):
                pass  # an integer beyond 64 bits: psycopg writes it
        if kinds == {Decimal}:
            return pa.array([None if value is None else str(value) for value in values], pa.string())
        return pa.array([self._dumped(value) for value in values], pa.string())

    def _dumped(self, value: Any) -> str | None:
        if value is None or isinstance(value, str):
            return value
        dumped = self._transformer.get_dumper(value, PyFormat.TEXT).dump(value)
        return None if dumped is None else bytes(dumped).decode(self._encoding)

    def _of_array(self, array: pa.Array, type_: str) -> pa.Array:
        import pyarrow as pa
        import pyarrow.compute as pc

        kind = array.type
        if isinstance(kind, pa.ExtensionType | pa.BaseExtensionType):
            if isinstance(kind, pa.UuidType):
                return pa.array([None if v is None else v.hex() for v in array.storage.to_pylist()], pa.string())
            return self._of_array(array.storage, type_)
        if pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            decoded = array.dictionary_decode() if pa.types.is_dictionary(kind) else pc.run_end_decode(array)
            return self._of_array(decoded, type_)
        if pa.types.is_timestamp(kind) and kind.tz is not None:
            # Arrow itself writes a time with its zone twenty times slower than one without.
            text = array.cast(pa.timestamp(kind.unit)).cast(pa.string())
            return pc.binary_join_element_wise(text, "Z", "")
        if pa.types.is_duration(kind):
            count = array.cast(pa.duration("us"), safe=False).cast(pa.int64()).cast(pa.string())
            return pc.binary_join_element_wise(count, " microseconds", "")
        if pa.types.is_string_view(kind):
            return array.cast(pa.large_string())
        if pa.types.is_float16(kind):
            return array.cast(pa.float32())
        if _is_binary(kind):
            return pa.array([None if v is None else "\\x" + v.hex() for v in array.to_pylist()], pa.string())
        if pa.types.is_nested(kind):
            return self._of_values(array.to_pylist(), type_)
        return array


def _is_binary(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    return any(
        test(kind)
        for test in (types.is_binary, types.is_large_binary, types.is_fixed_size_binary, types.is_binary_view)
    )


def _same_zones(values: Sequence[Any]) -> bool:
    return len({value.tzinfo is None for value in values if value is not None}) == 1


def _json(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
