"""What can go wrong with an adoption.

UsageError
+-- NotPostgres         it answers like PostgreSQL, and is another product
+-- TooOld
`-- NothingToAdopt      no table that the user may see
"""

from __future__ import annotations

from dbplatform.errors import UsageError


class NotPostgres(UsageError):
    """The server of {target} is {product}, not PostgreSQL."""


class TooOld(UsageError):
    """The server of {target} runs PostgreSQL {version}; {oldest} is the oldest that is supported."""


class NothingToAdopt(UsageError):
    """The database {database} has no table that {user} may read{why}."""
