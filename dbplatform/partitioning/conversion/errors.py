"""What can go wrong with a conversion."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class CannotConvert(UsageError):
    """{table} cannot be converted as it is, and nothing was changed: {reasons}"""


class AlreadyPartitioned(UsageError):
    """{table} is partitioned already, and not by a conversion that is under way."""


class NothingToUndo(UsageError):
    """No conversion of {table} is under way or done, so there is nothing to undo."""


class UndoUnderWay(UsageError):
    """An undo of the conversion of {table} is half-way."""


class DeclarationChanged(UsageError):
    """The conversion of {table} was begun by the column {begun}; the declaration says {declared} now."""


class LegacyGone(UsageError):
    """{legacy}, the table that {table} once was, is no longer its partition: the conversion cannot be undone."""


class TableReplaced(WorkError):
    """{table} is not the table whose conversion was begun."""


class ConversionFailed(WorkError):
    """The phase {phase} of the conversion of {table} failed: {reason}."""


class CannotUndo(UsageError):
    """The conversion of {table} cannot be undone as it is: {reasons}"""
