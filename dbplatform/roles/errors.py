"""What can go wrong with roles."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class MayNotMakeRoles(UsageError):
    """{user} may not make roles on this server."""


class AnotherDatabase(UsageError):
    """The URL in {variable} leads to the database {found} of {place}, which is not the one that {database} names."""


class RightsNotAsPlanned(WorkError):
    """Of the rights of {database}, {count} are still not as declared; nothing was changed: {first}"""
