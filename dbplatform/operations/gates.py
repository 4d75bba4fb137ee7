"""What must hold before a capability may work on a database."""

from __future__ import annotations

from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError


class NotDeclared(UsageError):
    """The database {database} declares no {what}."""


class SeedingRefused(UsageError):
    """The database {database} is declared as production: it is not seeded."""


def not_declared(declared: Declared, what: str, key: str) -> NotDeclared:
    """The error for a verb whose key the declaration leaves out."""
    return NotDeclared(
        database=declared.name,
        what=what,
        hint=f"Write {key}: below attributes.",
        file=declared.document.shown,
        line=declared.document.line_of(("attributes",)),
    )
