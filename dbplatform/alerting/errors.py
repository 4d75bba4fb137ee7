"""What can go wrong with alerts and their messages."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class UnknownAlert(UsageError):
    """There is no alert {id}."""


class AlreadyResolved(UsageError):
    """The alert {id} ({metric} of {database}) is resolved: there is nothing to acknowledge."""


class ChannelFailed(WorkError):
    """{reason}."""


class UnknownSilence(UsageError):
    """There is no silence {id}."""


class AlreadyOver(UsageError):
    """The silence {id} was over at {at} UTC: there is nothing to end."""


class SilenceTooLong(UsageError):
    """A silence of {days} days is too long: 31 days are the most."""
