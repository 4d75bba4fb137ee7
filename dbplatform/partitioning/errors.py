"""What can go wrong with partitions."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class NotPartitioned(UsageError):
    """The table {table} is not partitioned."""


class WrongPartitionKey(UsageError):
    """The table {table} is partitioned by {actual}, not by range of the column {column}."""


class UnsuitableColumn(UsageError):
    """The column {column} of {table} has the type {type}; partitions need timestamptz, timestamp, date or a
    whole number.
    """


class UnsuitableInterval(UsageError):
    """The column {column} of {table} is a date, which an interval of {interval} cannot divide."""


class WrongKind(UsageError):
    """The column {column} of {table} has the type {type}, which an interval of {interval} cannot divide."""


class TooManyPartitions(UsageError):
    """From {lower} on, {table} would need more than {limit} new partitions of {interval}."""


class OutOfCalendar(UsageError):
    """A partition of {table} would reach beyond {limit}."""


class NameTaken(UsageError):
    """The partition {name} of {table} cannot be made: another relation has that name already."""


class UnreadableBound(WorkError):
    """The bound of the partition {partition} cannot be read: {bound}."""


class PartitionFailed(WorkError):
    """The partition {name} of {table} could not be made: {reason}."""


class PartitionNotThere(WorkError):
    """The partition {name} was made, but the catalog does not show it under {table} with the range {bounds}."""


class RowsHeld(WorkError):
    """Rows cannot be moved out of the default partition {partition}: {reason}."""
