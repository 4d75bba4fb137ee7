"""What stands in the way of a live table."""

from __future__ import annotations

from dbplatform.errors import UsageError


class NoKey(UsageError):
    """The table {table} has no primary key, so that nobody could say which of its rows have changed."""


class NotLive(UsageError):
    """The table {table} cannot be live: {reason}."""


class ColumnMasked(UsageError):
    """Every change of the live table {table} would push {column}, which quality masks."""


class ColumnMissing(UsageError):
    """The table {table} has no column {column!r}."""
