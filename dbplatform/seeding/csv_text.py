"""CSV (RFC 4180) into the text format of COPY, as a stream of bytes in bounded memory.

Works on bytes, so that the server checks the encoding and names the line. A block without quotes, backslashes, tabs
and carriage returns, which is nearly every one, needs no more than a split per row; the others are read with care.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from dbplatform.seeding.errors import BadCsv

NULL = rb"\N"
#: Makes another value of one that is not NULL: a time that is moved, a password that is hashed.
Change = Callable[[bytes], bytes]

_BLOCK_BYTES = 1 << 18
_LONGEST_RECORD_BYTES = 1 << 26
_SPECIAL = re.compile(rb'["\\\t\r]')
_FIELD = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(,|\Z)')
_ESCAPED = re.compile(rb"[\\\t\n\r]")
_ESCAPES = {b"\\": rb"\\", b"\t": rb"\t", b"\n": rb"\n", b"\r": rb"\r"}


@dataclass(frozen=True, slots=True)
class Block:
    """Some records in a row, without their line ends; a ``plain`` one has no special character in it."""

    first_line: int
    records: list[bytes]
    plain: bool

    def line_of(self, index: int) -> int:
        """The line of the file on which the record starts."""
        return self.first_line + index + sum(record.count(b"\n") for record in self.records[:index])


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """Which fields go on, in which order, which texts mean NULL, and which fields are changed.

    ``nulls`` None: a field that is empty and has no quotes, as COPY does it.
    """

    width: int
    picked: Sequence[int]
    nulls: frozenset[bytes] | None
    changed: dict[int, Change]


def header_of(blocks: Iterator[Block], name: str) -> tuple[list[str], Block]:
    """The names of the first record, and the rest of the first block."""
    block = next(blocks, None)
    if block is None:
        raise BadCsv(reason=f"{name} is empty", file=name, hint="Its first line must name the columns.")
    fields = _fields(block.records[0], name, block.first_line)
    names = [text.decode(errors="replace").strip() for text, _ in fields]
    rest = Block(block.line_of(1), block.records[1:], block.plain)
    return names, rest


def blocks(stream: BinaryIO, name: str) -> Iterator[Block]:
    """The records of a file, blank lines left out of none; a line end inside quotes does not end a record."""
    line, left = 1, b""
    while True:
        read = stream.read(_BLOCK_BYTES)
        data = left + read
        if line == 1:
            data = data.removeprefix(b"\xef\xbb\xbf")
        if read and b"\n" not in data:
            left = data
            _check_length(left, name, line)
            continue
        cut = data.rfind(b"\n") + 1 if read else len(data)
        left, data = data[cut:], data[:cut]
        if not data:
            return
        plain = _SPECIAL.search(data) is None
        records = data.removesuffix(b"\n").split(b"\n")
        if not plain:
            records, unclosed = _join_quoted(records)
            if unclosed is not None:
                if not read:
                    start = Block(line, records, plain).line_of(len(records))
                    raise BadCsv(reason="a quote is opened and never closed", file=name, line=start)
                left = unclosed + b"\n" + left
                _check_length(left, name, line)
        if records:
            block = Block(line, records, plain)
            yield block
            line = block.line_of(len(records))
        if not read:
            return


def copy_lines(block: Block, shape: Shape, name: str) -> list[bytes]:
    """The records of a block as lines of COPY's text format, without line ends; blank lines are left out."""
    if not block.plain:
        return _careful_lines(block, shape, name)
    width, picked, changed = shape.width, shape.picked, shape.changed
    nulls = frozenset((b"",)) if shape.nulls is None else shape.nulls
    lines = []
    for index, record in enumerate(block.records):
        fields = record.split(b",")
        if len(fields) != width:
            if not record:
                continue
            raise _wrong_width(len(fields), width, name, block.line_of(index))
        values = [NULL if (value := fields[i]) in nulls else value for i in picked]
        for position, change in changed.items():
            if values[position] is not NULL:
                values[position] = _changed(change, values[position], name, block, index)
        lines.append(b"\t".join(values))
    return lines


def _careful_lines(block: Block, shape: Shape, name: str) -> list[bytes]:
    lines = []
    for index, raw in enumerate(block.records):
        record = raw.removesuffix(b"\r")
        if not record and shape.width > 1:
            continue
        line = block.line_of(index) if b'"' in record else 0
        fields = _fields(record, name, line)
        if len(fields) != shape.width:
            raise _wrong_width(len(fields), shape.width, name, block.line_of(index))
        values = []
        for position, i in enumerate(shape.picked):
            value, quoted = fields[i]
            if (not value and not quoted) if shape.nulls is None else value in shape.nulls:
                values.append(NULL)
                continue
            if position in shape.changed:
                value = _changed(shape.changed[position], value, name, block, index)
            values.append(_ESCAPED.sub(lambda match: _ESCAPES[match[0]], value))
        lines.append(b"\t".join(values))
    return lines


def values_of(block: Block, position: int, width: int, name: str) -> Iterator[bytes]:
    """One field of every record."""
    for index, raw in enumerate(block.records):
        if block.plain:
            fields = raw.split(b",")
        else:
            fields = [value for value, _ in _fields(raw.removesuffix(b"\r"), name, block.line_of(index))]
        if len(fields) == width:
            yield fields[position]


def _fields(record: bytes, name: str, line: int) -> list[tuple[bytes, bool]]:
    """The fields of a record, each with whether it stood in quotes."""
    fields, position = [], 0
    record = record.removesuffix(b"\r")
    while True:
        match = _FIELD.match(record, position)
        if match is None:
            raise BadCsv(
                reason="a quote stands inside a field that is not quoted as a whole",
                file=name,
                line=line or None,
                hint='Put the field in quotes and double the quotes inside it: "5"" pipe".',
            )
        quoted, plain, end = match.groups()
        fields.append((plain, False) if quoted is None else (quoted.replace(b'""', b'"'), True))
        position = match.end()
        if not end:
            return fields


def _join_quoted(lines: list[bytes]) -> tuple[list[bytes], bytes | None]:
    """Lines put together to records, by counting quotes, and the start of one that is not finished."""
    records: list[bytes] = []
    open_lines: list[bytes] = []
    for line in lines:
        odd = line.count(b'"') % 2 == 1
        if open_lines:
            open_lines.append(line)
            if odd:
                records.append(b"\n".join(open_lines))
                open_lines = []
        elif odd:
            open_lines = [line]
        else:
            records.append(line)
    return records, b"\n".join(open_lines) if open_lines else None


def _changed(change: Change, value: bytes, name: str, block: Block, index: int) -> bytes:
    try:
        return change(value)
    except (ValueError, OverflowError) as error:
        raise BadCsv(
            reason=str(error), file=name, line=block.line_of(index), hint="Mend it, or name its text under nulls."
        ) from error


def _wrong_width(found: int, width: int, name: str, line: int) -> BadCsv:
    return BadCsv(
        reason=f"the row has {found} field{'s' if found != 1 else ''}, the header has {width}",
        file=name,
        line=line,
        hint="Mend the row; a comma inside a field needs quotes around the field.",
    )


def _check_length(data: bytes, name: str, line: int) -> None:
    if len(data) > _LONGEST_RECORD_BYTES:
        raise BadCsv(
            reason=f"a row is longer than {_LONGEST_RECORD_BYTES >> 20} MB",
            file=name,
            line=line,
            hint="A quote that is never closed does that.",
        )
