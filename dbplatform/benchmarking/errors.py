"""What can go wrong with benchmarks."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class UnknownBenchmark(UsageError):
    """The database {database} declares no benchmark {name}."""


class UnknownRun(UsageError):
    """There is no run of benchmarks {name!r} of {database}."""


class TooManyClients(UsageError):
    """{clients} clients are more than the {most} connections that the pool of {database} may open."""


class NotAllowedNow(UsageError):
    """{database} is a production database, and {reason}."""


class NotComparable(UsageError):
    """{what} cannot be compared in one run: {reason}."""


class NoCopy(UsageError):
    """{what} needs a copy of {database} with its rows, and there is no backup."""


class NoValues(UsageError):
    """The parameter {parameter} of the benchmark {name} has no values: {reason}."""


class WritesUndeclared(UsageError):
    """The script of the benchmark {name} leaves the read-only mode, and is not declared as writing."""


class BenchmarkFailed(WorkError):
    """The benchmark {name} could not be run: {reason}."""
