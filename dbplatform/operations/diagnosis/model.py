"""What a probe gets and what it gives: a patient, and findings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

import psycopg
from psycopg import sql
from psycopg.rows import DictRow, dict_row

from dbplatform.declaration.loading import Declared
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target

Status = Literal["ok", "warn", "error", "not_checked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at."""

    status: Status
    message: str
    """What was found, in one sentence; of ``not_checked`` why nothing was."""
    mend: str | None = None
    """The next step: a command, SQL, or a setting."""
    probe: str = ""
    """What was looked at; the name of the probe where it is left out."""
    database: str | None = None
    """None: the surroundings."""
    file: str | None = None
    line: int | None = None

    def as_json(self) -> dict[str, Any]:
        """For ``dbplatform doctor --json``."""
        return {
            "database": self.database,
            "probe": self.probe,
            "status": self.status,
            "message": self.message,
            "mend": self.mend,
            "file": self.file,
            "line": self.line,
        }


def ok(message: str, **about: Any) -> Finding:
    """It is as it should be."""
    return Finding(status="ok", message=message, **about)


def warn(message: str, mend: str, **about: Any) -> Finding:
    """The platform works, but something will hurt some day."""
    return Finding(status="warn", message=message, mend=mend, **about)


def error(message: str, mend: str | None, **about: Any) -> Finding:
    """Something that is declared will fail, or data is in danger."""
    return Finding(status="error", message=message, mend=mend, **about)


def not_checked(reason: str, mend: str | None = None, **about: Any) -> Finding:
    """Nothing is known, for this reason."""
    return Finding(status="not_checked", message=reason, mend=mend, **about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """One declared database that answers, and the plain session to ask it by."""

    platform: Platform
    declared: Declared
    target: Target
    session: psycopg.Connection[Any] = field(repr=False)
    now: Callable[[], datetime]

    @property
    def major(self) -> int:
        """The server's major version."""
        return self.session.info.server_version // 10000

    @property
    def in_production(self) -> bool:
        return self.declared.database.connection.environment == "production"

    def ask(self, query: str, *values: Any) -> list[DictRow]:
        """The rows of a query."""
        with self.session.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(query.encode(), values or None).fetchall()

    def ask_one(self, query: str, *values: Any) -> DictRow:
        """The one row of a query."""
        (row,) = self.ask(query, *values)
        return row

    def sql(self, template: str, **parts: str | sql.Composable) -> str:
        """SQL to show as a mend: names are quoted, ``{user}`` and ``{database}`` are known."""
        known = {"user": self.user, "database": self.database, **parts}
        parts = {key: sql.Identifier(part) if isinstance(part, str) else part for key, part in known.items()}
        return sql.SQL(template).format(**parts).as_string(self.session)

    @property
    def user(self) -> str:
        """The role that the session works as."""
        return self.session.info.user

    @property
    def database(self) -> str:
        """The name on its server, which may be another than the declared one."""
        return self.session.info.dbname


Probe = Callable[[Patient], Iterator[Finding]]
