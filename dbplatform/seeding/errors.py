"""What can go wrong with seeds."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class SeedMistake(UsageError):
    """{message}"""


class SeedDirectoryMissing(UsageError):
    """The seed folder {directory} of the profile {profile} does not exist."""


class SeedPackageMissing(UsageError):
    """The package {package}, from which the seed reads its files, is not installed."""


class SeedFileMissing(UsageError):
    """The seed file {name} does not exist in {place}."""


class SeedHeaderWrong(UsageError):
    """{owner} has no column {missing}; it has {present}."""


class SeedChanged(UsageError):
    """The seed of {table} was applied to profile {profile} at {applied_at} {what}."""


class TableNotEmpty(UsageError):
    """The table {table} already holds rows that no seed of profile {profile} has loaded."""


class BadCsv(UsageError):
    """{reason}."""


class BadJson(UsageError):
    """{reason}."""


class SeedFailed(WorkError):
    """The seed of {table} could not be loaded: {reason}."""


class SeedForeignKeyBroken(WorkError):
    """The rows of {table} break its foreign key {constraint}: {detail}"""


class SeedRowsLost(WorkError):
    """{table}: the file has {file_rows} rows, COPY took {copied}, and {counted} are there; nothing was kept."""


class RowsWrong(UsageError):
    """{message}"""


class NoKey(UsageError):
    """The table {table} has no primary key."""


class KeyNotUnique(UsageError):
    """No unique constraint or index of {table} covers exactly {key}."""


class KeyTwice(WorkError):
    """Two of the rows for {table} have the same key: {example}."""


class LoadFailed(WorkError):
    """The rows could not be loaded into {table}: {reason}."""
