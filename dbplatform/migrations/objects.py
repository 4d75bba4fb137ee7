"""The schema of a database as a set of objects with their definitions, and how two such sets differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import SCHEMA

Objects = Mapping[tuple[str, str], str]
"""Definition by kind and name: ``("column", "public.t.a"): "integer not null"``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One object that is not what it should be; None: it is not there."""

    kind: str
    name: str
    expected: str | None
    actual: str | None

    def as_json(self) -> dict[str, Any]:
        """One of ``differences``."""
        return {"object": self.name, "kind": self.kind, "expected": self.expected, "actual": self.actual}

    def __str__(self) -> str:
        if self.actual is None:
            return f"{self.kind} {self.name} is missing"
        if self.expected is None:
            return f"{self.kind} {self.name} should not be there"
        return f"{self.kind} {self.name} is {self.actual!r}, not {self.expected!r}"


def schema_objects(connection: AutocommitConnection, *, history_table: Relation) -> dict[tuple[str, str], str]:
    """Every object that a migration can define, at one moment; the platform's own and the history table left out.

    The position of a column does not count: an undone DROP COLUMN cannot give it back. Owners do not either.
    """
    query = (files("dbplatform.postgres") / "sql" / "schema_objects.sql").read_text("utf-8")
    leave_out = [SCHEMA] if history_table.schema == "public" else [SCHEMA, history_table.schema]
    with connection.transaction():
        connection.execute("set transaction isolation level repeatable read, read only")
        connection.execute("select set_config('search_path', '', true)")
        rows = connection.execute(query.encode(), {"leave_out": leave_out, "history": str(history_table)}).fetchall()
    return {(kind, name): definition or "" for kind, name, definition in rows}


def differences(expected: Objects, actual: Objects) -> tuple[Difference, ...]:
    """Every object that is missing, extra or another one, by kind and name."""
    return tuple(
        Difference(kind=kind, name=name, expected=expected.get((kind, name)), actual=actual.get((kind, name)))
        for kind, name in sorted(expected.keys() | actual.keys())
        if expected.get((kind, name)) != actual.get((kind, name))
    )
