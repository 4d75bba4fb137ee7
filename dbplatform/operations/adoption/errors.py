"""What can go wrong with an adoption.

UsageError
+-- NotPostgres         it answers like PostgreSQL, and is another product
+-- TooOld
+-- ThroughPooler       what is set in our session would reach those of others
`-- NothingToAdopt      no table that the user may see
"""

from __future__ import annotations

from dbplatform.errors import UsageError


class NotPostgres(UsageError):
    """The server of {target} is {product}, not PostgreSQL."""


class TooOld(UsageError):
    """The server of {target} runs PostgreSQL {version}; {oldest} is the oldest that is supported."""


class ThroughPooler(UsageError):
    """Between here and the server of {target} is a connection pooler that gives each transaction another session."""


class NothingToAdopt(UsageError):
    """The database {database} has no table that {user} may read{why}."""
