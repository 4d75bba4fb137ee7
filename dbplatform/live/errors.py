"""What stands in the way of a live table."""

from __future__ import annotations

from dbplatform.errors import UsageError


class NoKey(UsageError):
    """The table {table} has no primary key, so that nobody could say which of its rows have changed."""


class KeyMasked(UsageError):
    """The key of {table} holds {column}, which quality masks, and every change would push it."""


class ColumnMissing(UsageError):
    """The table {table} has no column {column!r}."""
