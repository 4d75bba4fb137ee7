"""Who acts now, and the note of it in the audit log.

On the command line that is the user of this machine. The status service says for each request who has sent it, and from
where; a step of Dagster, of which run it is. Whoever changes something notes it in the transaction of the change:
neither is there without the other.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

Way = Literal["command line", "service", "dagster"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """A person or a program, by which way it came and from where."""

    name: str
    way: Way
    origin: str
    """The name of the machine, or a network address."""
    token_id: int | None = None
    run_id: str | None = None
    """The Dagster run in which it acts."""


_actor: ContextVar[Actor | None] = ContextVar("actor", default=None)


def user() -> str:
    """The user of this machine; ``uid 1001`` where it has no name, as in a container that runs as any user."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # the first until Python 3.12
        return f"uid {os.getuid()}"


def current() -> Actor:
    """Who acts: as ``acting`` says, else the user of this machine."""
    return _actor.get() or Actor(name=user(), way="command line", origin=socket.gethostname())


def in_run(run_id: str) -> Actor:
    """A run of Dagster, on this machine."""
    return Actor(name="dagster", way="dagster", origin=socket.gethostname(), run_id=run_id)


@contextmanager
def acting(actor: Actor) -> Iterator[None]:
    """All that is changed in the block is changed by this one; threads that are started in it know, too."""
    before = _actor.set(actor)
    try:
        yield
    finally:
        _actor.reset(before)


def note(
    session: Session,
    act: str,
    subject: str,
    *,
    database: str | None = None,
    run_id: str | None = None,
    way: Way | None = None,
    **details: Any,
) -> None:
    """Add to the audit log what was changed, in the transaction of ``session``; ``details`` hold no secret."""
    from dbplatform.ledger.access import AuditEntry

    actor = current()
    session.add(
        AuditEntry(
            actor=actor.name,
            way=way or actor.way,
            origin=actor.origin,
            token_id=actor.token_id,
            act=act,
            database=database,
            subject=subject,
            run_id=run_id or actor.run_id,
            details=details,
        )
    )
