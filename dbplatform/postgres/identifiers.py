"""Names of relations as people write them and as SQL wants them.

A relation is written ``schema.table`` (or ``table``: then the schema is ``public``), with PostgreSQL's double quotes
where a name needs them. Unquoted names fold to lower case, as PostgreSQL does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self

from psycopg import sql

_PART = re.compile(r'"((?:[^"\0]|"")+)"|([A-Za-z_\u0080-\uffff][A-Za-z0-9_$\u0080-\uffff]*)')
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")


def split_name(text: str) -> tuple[str, ...]:
    """``a."B c".d`` as its parts; raises ValueError with a sentence when it is no name."""
    parts: list[str] = []
    position = 0
    while True:
        match = _PART.match(text, position)
        if match is None:
            raise ValueError(f"{text!r} is not a name; write schema.table, in double quotes where needed")
        quoted, plain = match.groups()
        name = quoted.replace('""', '"') if quoted is not None else plain.lower()
        if len(name.encode()) > 63:
            raise ValueError(f"{name!r} is longer than the 63 bytes of a PostgreSQL name")
        parts.append(name)
        position = match.end()
        if position == len(text):
            return tuple(parts)
        if text[position] != ".":
            raise ValueError(f"{text!r} is not a name; write schema.table, in double quotes where needed")
        position += 1


def quoted(name: str) -> str:
    """The name as a person would write it: in double quotes only where it needs them."""
    return name if _PLAIN.fullmatch(name) else '"' + name.replace('"', '""') + '"'


@dataclass(frozen=True, slots=True, order=True)
class Relation:
    """A table, partition, view or index by schema and name."""

    schema: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """``flights`` or ``public.flights``; raises ValueError with a sentence."""
        parts = split_name(text)
        if len(parts) > 2:
            raise ValueError(f"{text!r} has {len(parts)} parts; write schema.table")
        return cls("public", parts[0]) if len(parts) == 1 else cls(*parts)

    @property
    def identifier(self) -> sql.Composable:
        """The name for a composed statement."""
        return sql.Identifier(self.schema, self.name)

    @property
    def words(self) -> str:
        """The name as people write it; ``public`` is left out."""
        return quoted(self.name) if self.schema == "public" else str(self)

    @property
    def word(self) -> str:
        """The name where only letters, digits and underscores may stand; ``schema__name`` outside of ``public``."""
        name = self.name if self.schema == "public" else f"{self.schema}__{self.name}"
        return re.sub(r"[^A-Za-z0-9_]", "_", name)

    def __str__(self) -> str:
        return f"{quoted(self.schema)}.{quoted(self.name)}"
