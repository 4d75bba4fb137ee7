"""The changes that advice makes, as values: each becomes one statement, is kept in the ledger, and can be run twice.

What is kept is what it does, not its SQL; only the definition of an index that was dropped is in the server's words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from psycopg import sql

Verb = Literal["create_index", "recreate_index", "drop_index", "reindex", "table_options", "setting"]

_CREATE = re.compile(r"^CREATE (UNIQUE )?INDEX ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One change. ``name`` is the index, the table or the setting; ``values`` are options, none to reset one."""

    verb: Verb
    name: str
    schema: str = ""
    table: str = ""
    columns: tuple[str, ...] = ()
    method: str = "btree"
    definition: str = ""
    """Of ``recreate_index``: as ``pg_get_indexdef`` gave it."""
    values: Mapping[str, str | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self)

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Action:
        """What ``as_json`` gave."""
        return cls(**{**document, "columns": tuple(document["columns"])})

    @property
    def identifier(self) -> sql.Identifier:
        """The index or table with its schema."""
        return sql.Identifier(self.schema, self.name)


def statement(action: Action) -> str:
    """The SQL of a change, in one statement."""
    if action.verb == "recreate_index":
        return _CREATE.sub(lambda found: f"CREATE {found[1] or ''}INDEX CONCURRENTLY ", action.definition)
    return _composed(action).as_string()


def _composed(action: Action) -> sql.Composed:
    if action.verb == "create_index":
        return sql.SQL("CREATE INDEX CONCURRENTLY {} ON {} USING {} ({})").format(
            sql.Identifier(action.name),
            sql.Identifier(action.schema, action.table),
            sql.Identifier(action.method),
            sql.SQL(", ").join(map(sql.Identifier, action.columns)),
        )
    if action.verb == "drop_index":
        return sql.SQL("DROP INDEX CONCURRENTLY IF EXISTS {}").format(action.identifier)
    if action.verb == "reindex":
        return sql.SQL("REINDEX INDEX CONCURRENTLY {}").format(action.identifier)
    if action.verb == "table_options":
        return _table_options(action)
    ((name, value),) = action.values.items()
    if value is None:
        return sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name))
    return sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))


def _table_options(action: Action) -> sql.Composed:
    """Options that are set, or else those that are reset: an advice never does both."""
    wanted = {name: value for name, value in action.values.items() if value is not None}
    if wanted:
        pairs = [sql.SQL("{} = {}").format(sql.Identifier(n), sql.Literal(v)) for n, v in wanted.items()]
        return sql.SQL("ALTER TABLE {} SET ({})").format(action.identifier, sql.SQL(", ").join(pairs))
    names = sql.SQL(", ").join(map(sql.Identifier, action.values))
    return sql.SQL("ALTER TABLE {} RESET ({})").format(action.identifier, names)
