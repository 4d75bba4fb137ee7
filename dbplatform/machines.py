"""One machine, or several: where work is spread over several, nothing may lie on the disk of the one that does it.

The environment says so, not a declaration: the same declared database is tried out on one machine and runs on ten.
What would lie on one machine alone is refused in one sentence, before anything is written; ``doctor`` says it, too.
"""

from __future__ import annotations

import os

from dbplatform.errors import UsageError

#: The URL of the Redis that hands the steps of runs to workers. Where it is set, there are several machines.
BROKER = "DBPLATFORM_CELERY_URL"
#: ``several`` where each run has a machine or a container of its own, as on Kubernetes; default: ``one``.
MACHINES = "DBPLATFORM_MACHINES"
_WORDS = ("one", "several")


class OnOneMachine(UsageError):
    """{what} would lie on one machine alone ({place}); work is spread over several, which share no disk."""


class NotANumberOfMachines(UsageError):
    """DBPLATFORM_MACHINES is {given!r}, which is neither one nor several."""


def broker() -> str | None:
    """The URL of the broker, a secret; None where steps run in the process of their run."""
    return os.environ.get(BROKER) or None


def several() -> bool:
    """Whether work is spread over machines that share no disk. Raises ``NotANumberOfMachines``."""
    given = os.environ.get(MACHINES) or _WORDS[0]
    if given not in _WORDS:
        raise NotANumberOfMachines(given=given, hint=f"Write {' or '.join(_WORDS)}, or unset it.")
    return given == "several" or broker() is not None


def refuse_on_one(what: str, place: object, *, hint: str) -> None:
    """Raise ``OnOneMachine`` for what lies at a place of this machine, where there are several."""
    if several():
        raise OnOneMachine(what=what, place=place, hint=hint)
