"""What can go wrong with archives."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class UnsuitableArchiveColumn(UsageError):
    """The column {column} of {table} has the type {type}; archiving needs timestamptz, timestamp or date."""


class ArchiveColumnMissing(UsageError):
    """The table {table} has no column {column}."""


class UnsuitablePredicate(UsageError):
    """The ``where`` of the archive {name} is no condition on a row of {table}: {reason}."""


class NoKey(UsageError):
    """The table {table} has no primary key and no unique index over NOT NULL columns: a row cannot be told apart."""


class UnsuitableTable(UsageError):
    """The table {table} cannot be archived: {reason}."""


class CannotKeepType(UsageError):
    """The column {column} of {table} has the type {type}, whose values do not survive a file: {reason}."""


class RowsReferenced(UsageError):
    """{rows} of the rows to archive from {table} are referred to by {child} ({constraint})."""


class UnsuitableErasure(UsageError):
    """What is to be erased cannot be found in {where}: {reason}."""


class ErasedRowsReferenced(UsageError):
    """{rows} rows of {child} in {where} refer to rows of {table} that are to be erased ({by})."""


class ErasureMustWait(UsageError):
    """The archive {archive} of {table} is not finished, so nobody can say which rows have left."""


class ReplayFailed(WorkError):
    """Rows of {table} that were erased on purpose cannot be erased again: {reason}."""


class CutoffOutOfCalendar(UsageError):
    """Going {older_than} back from {now} leaves the calendar."""


class NotProven(WorkError):
    """The rows of {table} are not deleted: {reason}."""


class ArchiveNotWritten(WorkError):
    """The archive file {path} could not be written: {reason}."""


class ArchiveDamaged(WorkError):
    """The archive file {path} is not what was written: {reason}."""


class ReadBackDiffers(WorkError):
    """The archive file {path} does not give back the rows that were exported: {reason}. Nothing was deleted."""


class ArchiveTableChanged(WorkError):
    """The table {table} is no longer as the archive {archive} found it: {reason}."""


class ArchiveMovedOn(WorkError):
    """Another process works on the archive {archive}: row {expected} was next, but it stands at row {actual}."""


class RowsHeldBack(WorkError):
    """{rows} rows of {table} were not deleted though nothing had changed, so that none of their batch was."""


class ReplicaBehind(WorkError):
    """The replica {replica} still has {mb} MB of WAL to replay, so no more rows of {table} are deleted."""


class UnknownArchive(UsageError):
    """The ledger has no archive {archive} of the database {database}."""


class ArchiveOfAnotherDatabase(UsageError):
    """The archive {archive} belongs to the database {database!r}, not {asked!r}."""


class RestoreConflict(WorkError):
    """{rows} of the archived rows are in {table} with other contents, such as {keys}; nothing was written."""


class RestoredWithParents(UsageError):
    """The rows of the archive {archive} refer to those of {parent} and come back along with them."""


class RestorePartitionMissing(WorkError):
    """{table} has no partition for the archived row {key}; nothing was written."""


class RestoreFailed(WorkError):
    """The archive {archive} could not be restored into {table}: {reason}; nothing was written."""
