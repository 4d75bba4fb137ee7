"""The schema of a database as a set of objects, each with the parts that define it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import SCHEMA

#: Options of foreign servers and tables whose values are neither shown nor compared.
_SECRET = "(?i)^([^=]*(?:pass|secret|token|key)[^=]*)=.*$"


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemaObject:
    """One object. Two are the same if their kind, name and parts are."""

    kind: str
    name: str
    parts: Mapping[str, str]
    """What defines it: ``{"type": "integer", "not null": "yes"}`` of a column."""
    parent: str | None = field(default=None, compare=False)
    """Kind and name of what it belongs to and goes with."""
    sql: Mapping[str, Any] = field(default_factory=dict, compare=False)
    """Pieces of SQL that make, alter or remove it: see ``postgres/sql/schema_objects.sql``."""

    @property
    def full_name(self) -> str:
        """Kind and name, as ``parent`` names it."""
        return f"{self.kind} {self.name}"

    @property
    def words(self) -> str:
        """Its parts in one line."""
        return "; ".join(
            text if part in ("definition", "type", "privileges", "text", "values") else f"{part} {text}"
            for part, text in self.parts.items()
        )

    def as_json(self) -> dict[str, Any]:
        return {"kind": self.kind, "name": self.name, "parts": self.parts, "parent": self.parent, "sql": self.sql}


Objects = Mapping[tuple[str, str], SchemaObject]
"""By kind and name."""


def schema_objects(
    connection: AutocommitConnection, *, history_table: Relation, partitioned: Sequence[Relation] = ()
) -> dict[tuple[str, str], SchemaObject]:
    """Every object that a migration can define, at one moment; the platform's own and the history table left out.

    So are the partitions of the tables in ``partitioned``. The position of a column does not count: an undone DROP
    COLUMN cannot give it back. Owners do not either.
    """
    values = {
        "leave_out": [SCHEMA],
        "history": str(history_table),
        # It is made with the history table, before any migration.
        "history_schema": None if history_table.schema == "public" else history_table.schema,
        "secret": _SECRET,
        "partitioned": [str(table) for table in partitioned],
    }
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        # To compile so long a statement over a large catalog takes many times as long as to run it.
        connection.execute("select set_config('search_path', '', true), set_config('jit', 'off', true)")
        rows = connection.execute(query().encode(), values).fetchall()
    return {
        (kind, name): SchemaObject(kind=kind, name=name, parent=parent, parts=parts, sql=sql)
        for kind, name, parent, parts, sql in rows
    }


def query() -> str:
    """What is asked of the catalog."""
    return (files("dbplatform.postgres") / "sql" / "schema_objects.sql").read_text("utf-8")
