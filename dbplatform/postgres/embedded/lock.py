"""The lock of the embedded server: whoever starts, stops or removes it is alone in doing so.

It is an ``flock``, so it goes with the process that holds it, however that process ends.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dbplatform.errors import ServerError
from dbplatform.postgres.embedded.files import working_in

_POLL_S = 0.02


@contextmanager
def locked(folder: Path, *, timeout_s: float) -> Iterator[None]:
    """Hold ``folder/lock`` inside the block; the folder is made when missing. Raises ServerError after ``timeout_s``.

    The descriptor is closed in every program that is run meanwhile, so the server never holds the lock; and the lock is
    given back explicitly, because a process forked meanwhile shares it.
    """
    with working_in(folder):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _acquire(lock, folder / "lock", timeout_s)
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _acquire(lock: int, file: Path, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise ServerError(
                    f"Another process has been starting or stopping the embedded server of {file.parent} "
                    f"for {timeout_s:.0f} s.",
                    hint=f"See who it is: fuser -v {file}",
                ) from None
            time.sleep(_POLL_S)
        else:
            return
