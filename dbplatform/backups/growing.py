"""A file that pg_dump still writes, read to its end while it grows.

Whether a file is finished is asked of the kernel: a read lease is given only on a file that nobody has open for writing
(Linux manual: fcntl(2), F_SETLEASE), and pg_dump opens each data file once; an empty one may have been made just now.
Where there are no leases (other systems, network file systems) a file is finished when pg_dump has ended.
"""

from __future__ import annotations

import fcntl
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

#: How a file that was opened is to be read.
Reading = Callable[[io.FileIO], io.RawIOBase]


def whole(file: io.FileIO) -> io.RawIOBase:
    """As it is: it has all that it will have."""
    return file


class Growing(io.RawIOBase):
    """What is added to the end of a file, as it comes; its end is there when ``finished`` says so.

    Where nothing more is there yet, ``wait`` waits a little; what it raises ends the reading.
    """

    def __init__(self, file: io.FileIO, *, finished: Callable[[], bool], wait: Callable[[], None]) -> None:
        self._file = file
        self._finished = finished
        self._wait = wait

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not (read := self._file.readinto(buffer)):
            # Asked before the last look: what is not there then will never be.
            if self._finished():
                return self._file.readinto(buffer) or 0
            self._wait()
        return read


def is_finished(path: Path) -> bool:
    """Whether something was written to the file and nobody has it open for writing; not where nobody can tell."""
    if not hasattr(fcntl, "F_SETLEASE"):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        # Who opens it for writing now is kept waiting, and we are told: by SIGIO, which would end this process, unless
        # another signal is named. This one is ignored by default, and does no harm where it has a handler.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        return os.fstat(descriptor).st_size > 0
    except OSError:
        return False
    finally:
        os.close(descriptor)  # the lease goes with it
