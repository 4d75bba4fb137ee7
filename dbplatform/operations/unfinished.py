"""Which work was begun, or is about to begin, that deals with an invalid index itself: a clean-up leaves that to it."""

from __future__ import annotations

import re
from collections.abc import Callable

from dbplatform.advice.actions import Action
from dbplatform.advice.record import advice_of
from dbplatform.declaration.loading import Declared
from dbplatform.migrations.classify import concurrent_index
from dbplatform.migrations.compare import Files, compare
from dbplatform.migrations.statements import split
from dbplatform.operations import schema
from dbplatform.operations.platform import Platform
from dbplatform.partitioning.conversion.names import fitted
from dbplatform.postgres.connection import AutocommitConnection

#: What REINDEX CONCURRENTLY calls the index that it builds, and the one that it takes the place of.
_OF_REINDEX = re.compile(r"_cc(new|old)\d*$")
_MARKS = "select to_regclass(%s) is not null"
_MIGRATIONS = "select script from dbplatform.migration_progress order by script limit 1"
_CONVERSIONS = "select table_name, key_name from dbplatform.partition_conversion where key_name is not null"


def index_work(platform: Platform, declared: Declared, connection: AutocommitConnection) -> Callable[[str], str | None]:
    """A function that says of an index's name which work needs it, none: nobody does. Only reads.

    Raises ``HistoryMismatch`` and ``MigrationFileError``: of migrations in disorder nobody knows what they need.
    """
    by_name: dict[str, str] = {}
    rebuilt: dict[str, str] = {}
    any_rebuilt = None
    if declared.database.migrations is not None:
        policy, folders = schema.policy_of(declared)
        for pending, _ in compare(connection, Files.of(folders), policy, target=None).pending:
            for statement in split(pending.text, file=pending.path).statements:
                index = concurrent_index(statement)
                if index is not None and index.name is not None:
                    by_name[index.name] = f"{pending.script} builds it: dbplatform migrate apply {declared.name}"
    if _is_there(connection, "dbplatform.migration_progress"):
        row = connection.execute(_MIGRATIONS).fetchone()
        if row is not None:
            any_rebuilt = f"{row[0]} is not at its end: dbplatform migrate apply {declared.name}"
    if _is_there(connection, "dbplatform.partition_conversion"):
        for table, key in connection.execute(_CONVERSIONS).fetchall():
            words = f"the conversion needs it: dbplatform partition convert {declared.name} --table {table}"
            by_name |= {fitted(key, "_wide"): words, fitted(key, "_plain"): words}
    for advice in advice_of(platform.ledger, declared.name, "applying", "undoing"):
        for document in (advice.action, advice.undo):
            if document is not None:
                name = Action.from_json(document).name
                verb = "apply" if advice.state == "applying" else "undo"
                words = f"advice that was begun needs it: dbplatform advise {verb} {advice.id}"
                by_name[name] = rebuilt[name] = words

    def needed(name: str) -> str | None:
        of_reindex = _OF_REINDEX.search(name)
        if of_reindex is None:
            return by_name.get(name)
        # A long name was cut to make room for the ending.
        stem = name[: of_reindex.start()]
        return any_rebuilt or next((why for one, why in rebuilt.items() if one.startswith(stem)), None)

    return needed


def _is_there(connection: AutocommitConnection, table: str) -> bool:
    row = connection.execute(_MARKS, (table,)).fetchone()
    return row is not None and bool(row[0])
