"""JSON lines into the text format of COPY: one object a line, its keys the columns of the table.

A number keeps the digits that were written. What stands inside of a document for a ``json`` column is written anew,
with numbers as floats of 64 bits. A key that is missing in a line is NULL there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from dbplatform.seeding.csv_text import NULL, Change
from dbplatform.seeding.errors import BadJson

_BLOCK_LINES = 1024
_ESCAPED = re.compile(r"[\\\t\n\r]")
_ESCAPES = {"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"}
_HINT = 'Each line is an object: {"column": value}.'


class _Number(float):
    """A number that remembers how it was written."""

    text: str

    def __new__(cls, text: str) -> _Number:
        number = super().__new__(cls, text)
        number.text = text
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class JsonShape:
    """The keys to take, in order; which of them are for JSON columns, and which are changed."""

    keys: tuple[str, ...]
    documents: frozenset[str]
    changed: dict[str, Change]


def objects(stream: BinaryIO, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each object with its line; blank lines are left out. Raises ``BadJson`` with the line."""
    for line, raw in enumerate(stream, start=1):
        text = raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw
        if not text.strip():
            continue
        try:
            found = json.loads(text, parse_float=_Number, parse_constant=_refuse)
        except ValueError as error:
            raise BadJson(reason=f"this is not JSON: {error}", file=name, line=line, hint=_HINT) from error
        if not isinstance(found, dict):
            raise BadJson(reason=f"a {type(found).__name__} is no row", file=name, line=line, hint=_HINT)
        yield line, found


def keys_of(stream: BinaryIO, name: str) -> list[str]:
    """All keys that come up in the file, in the order of their first coming. Reads all of it."""
    found: dict[str, None] = {}
    for _, row in objects(stream, name):
        found.update(dict.fromkeys(row))
    if not found:
        raise BadJson(reason=f"{name} holds no row", file=name, hint=_HINT)
    return list(found)


def copy_blocks(stream: BinaryIO, shape: JsonShape, name: str) -> Iterator[list[bytes]]:
    """Lines of COPY's text format, without line ends, some at a time."""
    lines: list[bytes] = []
    for line, row in objects(stream, name):
        try:
            lines.append(b"\t".join(_field(shape, key, row.get(key)) for key in shape.keys))
        except ValueError as error:
            raise BadJson(reason=str(error), file=name, line=line, hint="Mend the value.") from error
        if len(lines) == _BLOCK_LINES:
            yield lines
            lines = []
    yield lines


def _field(shape: JsonShape, key: str, value: Any) -> bytes:
    if value is None:
        return NULL
    text = json.dumps(value, ensure_ascii=False) if key in shape.documents else _text(key, value)
    change = shape.changed.get(key)
    if change is not None:
        text = change(text.encode()).decode()
    return _ESCAPED.sub(lambda match: _ESCAPES[match[0]], text).encode()


def _text(key: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, _Number):
        return value.text
    if isinstance(value, list):
        return _array(key, value)
    if isinstance(value, dict):
        raise ValueError(f"{key} holds an object, and its column is neither json nor jsonb")
    return str(value)


def _array(key: str, values: list[Any]) -> str:
    """An array as PostgreSQL writes it; every text in quotes, so that none of them reads as NULL."""
    parts = []
    for value in values:
        if value is None:
            parts.append("NULL")
        elif isinstance(value, list):
            parts.append(_array(key, value))
        else:
            escaped = _text(key, value).replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'"{escaped}"')
    return "{" + ",".join(parts) + "}"


def _refuse(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")
