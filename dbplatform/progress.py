"""How long work tells where it stands: the core reports facts, whoever listens shows them.

A capability calls ``report``; the command line shows a bar, a Dagster step writes its log, a test collects.
With nobody listening a call costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One fact: ``done`` of ``total`` (None: not known) units of ``task`` are finished."""

    task: str
    done: int
    total: int | None
    unit: str


Listener = Callable[[Progress], None]
_listener: ContextVar[Listener | None] = ContextVar("progress_listener", default=None)


def report(task: str, *, done: int, total: int | None = None, unit: str = "") -> None:
    """Tell the listener, if there is one, how far ``task`` is."""
    listener = _listener.get()
    if listener is not None:
        listener(Progress(task=task, done=done, total=total, unit=unit))


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Hear every report made inside the block, in this thread; listeners further out hear it too."""
    outer = _listener.get()

    def both(progress: Progress) -> None:
        listener(progress)
        if outer is not None:
            outer(progress)

    token = _listener.set(both)
    try:
        yield
    finally:
        _listener.reset(token)
