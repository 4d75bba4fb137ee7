"""What can go wrong with advice."""

from __future__ import annotations

from dbplatform.errors import UsageError, WorkError


class UnknownAdvice(UsageError):
    """No advice {id} is known."""


class NotApplicable(UsageError):
    """The advice {id} ({subject}) cannot be applied here: {reason}."""


class NotFollowed(UsageError):
    """The advice {id} ({subject}) is {state}, so there is nothing to {what}."""


class NoLongerTrue(UsageError):
    """The advice {id} ({subject}) no longer holds: {reason}."""


class NameInTheWay(WorkError):
    """{name} exists already, and is no index that this advice made."""


class StillBuilding(WorkError):
    """Backend {pid} is building the index {name}."""


class NotBuilt(WorkError):
    """The index {name} could not be built: {reason}."""
