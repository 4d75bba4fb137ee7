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
    """The seed of {table} was applied to profile {profile} at {applied_at} with other contents or options."""


class TableNotEmpty(UsageError):
    """The table {table} already holds rows that no seed of profile {profile} has loaded."""


class BadCsv(UsageError):
    """{reason}."""


class SeedFailed(WorkError):
    """The seed of {table} could not be loaded: {reason}."""


class SeedForeignKeyBroken(WorkError):
    """The rows of {table} break its foreign key {constraint}: {detail}"""


class SeedRowsLost(WorkError):
    """{table}: the file has {file_rows} rows, COPY took {copied}, and {counted} are there; nothing was kept."""
