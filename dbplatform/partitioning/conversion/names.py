"""The names that a conversion gives, worked out from those that are there; the same in every run of it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from dbplatform.postgres.identifiers import Relation

_NAME_BYTES = 63


def fitted(name: str, end: str) -> str:
    """``name`` with ``end`` behind it; a long one is cut and gets a digest, so that 63 bytes are enough."""
    if len((name + end).encode()) <= _NAME_BYTES:
        return name + end
    end = f"_{hashlib.sha256(name.encode()).hexdigest()[:8]}{end}"
    return name.encode()[: _NAME_BYTES - len(end)].decode(errors="ignore") + end


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Of one table. ``key`` is its primary key where that must be extended by the partition column."""

    table: Relation
    key: str | None

    @property
    def extends_key(self) -> bool:
        """Whether the primary key gets the partition column."""
        return self.key is not None

    @property
    def legacy(self) -> Relation:
        """What the plain table is called as a partition."""
        return Relation(self.table.schema, fitted(self.table.name, "_legacy"))

    @property
    def aside(self) -> Relation:
        """What the other table is called while names are exchanged: never seen outside of a transaction."""
        return Relation(self.table.schema, fitted(self.table.name, "_aside"))

    @property
    def check(self) -> str:
        """The CHECK that proves the range."""
        return "dbplatform_conversion"

    @property
    def wide_key(self) -> str:
        """The unique index that becomes the primary key with the partition column."""
        return fitted(self.key or "", "_wide")

    def builds(self, index: str) -> bool:
        """Whether the index is the one that the conversion makes itself."""
        return self.extends_key and index == self.wide_key

    @property
    def plain_key(self) -> str:
        """The unique index that becomes the primary key again in an undo."""
        return fitted(self.key or "", "_plain")

    def of_legacy(self, name: str) -> str:
        """The name of an index of the plain table while it is a partition."""
        return fitted(name, "_legacy")
