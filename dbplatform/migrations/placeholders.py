"""Placeholders: ``${name}`` in a migration file becomes its value, before anything else reads the file.

As Flyway does it (``internal/parser/PlaceholderReplacingReader`` and ``ParsingContext``): everywhere in the file,
comments and strings too; a name without a value is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from dbplatform.errors import NotBuiltYet
from dbplatform.migrations.errors import ScriptError
from dbplatform.migrations.files import Migration
from dbplatform.postgres.connection import AnyConnection
from dbplatform.postgres.identifiers import Relation

_PLACEHOLDER = re.compile(r"\$\{(.*?)(\}|\Z)", re.DOTALL)


class Placeholders:
    """The values for the files of one database. The server is asked only for what a file uses, and only once.

    Without a connection its user and database are called ``unknown``.
    """

    def __init__(self, connection: AnyConnection | None, declared: Mapping[str, str], history_table: Relation) -> None:
        self._connection = connection
        self._values = {name.lower(): value for name, value in declared.items()}
        self.declared = tuple(sorted(self._values.items()))
        self._history_table = history_table

    def replaced(self, migration: Migration) -> str:
        """The text of a migration with every placeholder replaced; raises ``ScriptError`` for an unknown one."""
        text = migration.text
        if not migration.placeholder_replacement or "${" not in text:
            return text

        def value(match: re.Match[str]) -> str:
            name, end = match.groups()
            found = self._value(name, migration) if end else None
            if found is not None:
                return found
            line = len(re.findall(r"\r\n|\n|\r", text[: match.start()])) + 1
            if name.lower().startswith("flyway:"):
                raise NotBuiltYet(what=f"The placeholder ${{{name}}}", file=migration.path, line=line)
            known = ", ".join(sorted(self._values)) or "none"
            raise ScriptError(
                f"The placeholder ${{{name}}} has no value." if end else "A placeholder ${ has no closing brace.",
                hint=f"Declare it under migrations.placeholders (declared: {known}), or write "
                "placeholderReplacement=false into "
                f"{migration.path.name}.conf if it is meant as it stands.",
                file=migration.path,
                line=line,
            )

        return _PLACEHOLDER.sub(value, text)

    def _value(self, name: str, migration: Migration) -> str | None:
        key = name.lower()
        if key == "flyway:filename":
            return migration.path.name
        if key not in self._values and key.startswith("flyway:"):
            default = self._default(key)
            if default is not None:
                self._values[key] = default
        return self._values.get(key)

    def _default(self, key: str) -> str | None:
        if key == "flyway:defaultschema":
            return self._history_table.schema
        if key == "flyway:table":
            return self._history_table.name
        if key == "flyway:database":
            return self._connection.info.dbname if self._connection else "unknown"
        if key == "flyway:timestamp":
            return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        if key == "flyway:workingdirectory":
            return str(Path.cwd())
        if key == "flyway:user":
            if self._connection is None:
                return "unknown"
            row = self._connection.execute("select current_user").fetchone()
            assert row is not None
            return str(row[0])
        return None
