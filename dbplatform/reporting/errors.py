"""What can go wrong with a report."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class ReportNotFound(UsageError):
    """There is no report of {what}."""


class NotAWebAddress(UsageError):
    """{url!r} is not a web address that a report may link to."""


class RunNotFinished(WorkError):
    """The data-quality run {run_id} has no verdict yet, so there is nothing to report."""


class ReportNotWritten(WorkError):
    """The report {location} was not written: {reason}."""
