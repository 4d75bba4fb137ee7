"""What can be wrong with migrations: the files (exit 2), or their work (exit 3).

UsageError
+-- MigrationFileError      a name, a duplicate, an encoding, a setting
|   `-- ScriptError             the SQL inside: unterminated, a psql command, its own transaction
+-- FilesChanged            they are not those that were planned
+-- HistoryMismatch         files and history do not fit together
+-- TargetUnknown
+-- UndoImpossible          no undo file, or a version that has none by its nature
+-- BaselineImpossible      the history has begun already
+-- RepairImpossible        what it is told to mend is not there
+-- UnknownRule             a rule of lint that there is not
+-- DestructiveStatement
`-- SchemaDrifted           block_on_drift
WorkError
+-- MigrationFailed         PostgreSQL refused a statement
+-- IndexInTheWay           a name that CREATE INDEX CONCURRENTLY wants is taken
+-- InDoubt                 an earlier run was killed in a statement that left no trace
+-- FileChangedHalfWay      a file that ran in part has changed in that part
+-- LintCouldNotRun         squawk is missing, or gave no answer
+-- CannotCompare           the migrations do not build what the database should be
`-- HistoryTableError       it cannot be read or made
"""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class MigrationFileError(UsageError):
    """{message}"""


class ScriptError(MigrationFileError):
    """{message}"""


class FilesChanged(UsageError):
    """The migrations of {database} are not those that were planned: their files have changed since."""


class HistoryMismatch(UsageError):
    """{message}"""


class TargetUnknown(UsageError):
    """{message}"""


class UndoImpossible(UsageError):
    """{message}"""


class BaselineImpossible(UsageError):
    """{message}"""


class RepairImpossible(UsageError):
    """{message}"""


class UnknownRule(UsageError):
    """Lint has no rule {rule!r}."""


class DestructiveStatement(UsageError):
    """The statement destroys data ({what}) and the policy does not allow it: {statement}"""


class SchemaDrifted(UsageError):
    """The schema of {database} is not what its migrations make, and block_on_drift is declared: {first}{more}."""


class MigrationFailed(WorkError):
    """{script} failed: {reason} (SQLSTATE {sqlstate}) in: {statement}"""


class HistoryTableError(WorkError):
    """The history table {table} cannot be {verb}: {reason}."""


class IndexInTheWay(WorkError):
    """{message}"""


class InDoubt(WorkError):
    """An earlier run of {script} was ended in its statement {number} of {total}, and nothing tells whether that had
    done its work: {statement}"""


class ServerWide(WorkError):
    """{statement} cannot be tried out on the server of the database itself: {what}."""


class FileChangedHalfWay(WorkError):
    """The first {done} statements of {script} ran in an earlier run, and they are not the same any more."""


class LintCouldNotRun(WorkError):
    """{message}"""


class CannotCompare(WorkError):
    """The schema of {database} could not be compared with its migrations: {reason}."""
