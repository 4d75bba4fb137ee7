"""What can go wrong with maintenance.

UsageError
+-- OnStandby           the database only reads
`-- QueryRefused        a declared query that does not run
WorkError
`-- SomeFailed          the rest was done
"""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class OnStandby(UsageError):
    """The database {database} is a standby: it is cared for by its primary."""


class QueryRefused(UsageError):
    """The query {name} of maintenance does not run: {reason}."""


class SomeFailed(WorkError):
    """Of the maintenance of {database} {failed} of {tried} items failed, the first of them {subject}: {reason}."""
