"""What can be wrong with migrations: the files (exit 2), or their work (exit 3).

UsageError
+-- MigrationFileError      a name, a duplicate, an encoding, a setting
|   `-- ScriptError             the SQL inside: unterminated, a psql command, its own transaction
+-- HistoryMismatch         files and history do not fit together
+-- TargetUnknown
`-- DestructiveStatement
WorkError
+-- MigrationFailed         PostgreSQL refused a statement
+-- IndexInTheWay           a name that CREATE INDEX CONCURRENTLY wants is taken
`-- HistoryTableError       it cannot be read or made
"""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class MigrationFileError(UsageError):
    """{message}"""


class ScriptError(MigrationFileError):
    """{message}"""


class HistoryMismatch(UsageError):
    """{message}"""


class TargetUnknown(UsageError):
    """{message}"""


class DestructiveStatement(UsageError):
    """The statement destroys data ({what}) and the policy does not allow it: {statement}"""


class MigrationFailed(WorkError):
    """{script} failed: {reason} (SQLSTATE {sqlstate}) in: {statement}"""


class HistoryTableError(WorkError):
    """The history table {table} cannot be {verb}: {reason}."""


class IndexInTheWay(WorkError):
    """{message}"""
