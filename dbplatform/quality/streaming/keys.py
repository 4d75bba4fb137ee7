"""Whether keys repeat, for any number of them in bounded memory.

Keys come as 64-bit numbers, batch by batch. Each batch is sorted and written to a temporary file that has no name; in
the end one 256th of the range after the other is read back and sorted. Numbers that are the keys themselves, scattered
one to one, are counted exactly. Of hashes only this is taken: where no hash repeats, no key does. Where one does, the
server is asked, so that no hash is trusted.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from typing import Any

import numpy as np

_PARTS = 256
_EDGES = (np.arange(1, _PARTS, dtype=np.uint64) << np.uint64(56)).astype(np.uint64)
_BYTES = 8


class Keys:
    """The keys that one session has seen."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="dbplatform-keys-")  # noqa: SIM115 - closed by ``close``
        self._runs: list[np.ndarray[Any, Any]] = []
        self._written = 0

    def add(self, numbers: np.ndarray[Any, Any]) -> None:
        """Take a batch of scattered 64-bit numbers."""
        ordered = np.sort(numbers)
        edges = np.empty(_PARTS + 1, dtype=np.int64)
        edges[0], edges[-1] = 0, ordered.size
        edges[1:-1] = np.searchsorted(ordered, _EDGES)
        self._file.write(ordered.data)
        self._runs.append(edges + self._written)
        self._written += ordered.size

    def part(self, number: int) -> list[np.ndarray[Any, Any]]:
        """The numbers in one 256th of the range, a sorted run for each batch."""
        runs = ((int(edges[number]), int(edges[number + 1])) for edges in self._runs)
        descriptor = self._file.fileno()
        return [
            np.frombuffer(os.pread(descriptor, (end - start) * _BYTES, start * _BYTES), dtype=np.uint64)
            for start, end in runs
            if end > start
        ]

    def flush(self) -> None:
        """Make all that was taken readable."""
        self._file.flush()

    def close(self) -> None:
        """Give back the disk."""
        self._file.close()


def repeating(keys: Iterable[Keys]) -> int:
    """How many numbers, over all sessions, are equal to another one."""
    sessions = list(keys)
    for session in sessions:
        session.flush()
    total = 0
    for number in range(_PARTS):
        runs = [run for session in sessions for run in session.part(number)]
        if not runs:
            continue
        ordered = np.sort(np.concatenate(runs), kind="stable")  # merges what is sorted in runs
        equal = ordered[1:] == ordered[:-1]
        if equal.any():
            beside = np.zeros(ordered.size, dtype=bool)
            beside[1:] = equal
            beside[:-1] |= equal
            total += int(np.count_nonzero(beside))
    return total
