"""One command for many databases: a process each, so many side by side, and of one server no more than it bears.

What fails, or is killed, or takes much memory in one of them is nothing to the others. All end with this process, even
when it is killed (``dbplatform.supervised``).
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

from dbplatform.declaration.loading import Declared
from dbplatform.errors import WorkError
from dbplatform.operations.platform import Platform
from dbplatform.operations.servers import bounds, server_of

#: What the commands themselves end with; anything else is the end of a process that could say nothing.
_EXIT_CODES = range(4)


class ProcessEnded(WorkError):
    """The process of {database} ended with code {code} and without an answer{last}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of the command for one database."""

    database: str
    exit_code: int
    document: Mapping[str, Any]
    """What it printed; an ``error`` where it failed."""
    began: float
    ended: float
    peak_bytes: int
    """The most memory that one of its processes had."""

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    @property
    def error(self) -> Mapping[str, Any] | None:
        """The ``error`` of the contract; none where the command did its work."""
        return self.document.get("error")


def peak_at_once(ended: Sequence[Ended]) -> int:
    """The most memory that processes had which went on at the same time, were each at its own peak."""
    edges = sorted([(one.began, one.peak_bytes) for one in ended] + [(one.ended, -one.peak_bytes) for one in ended])
    now = most = 0
    for _, change in edges:
        now += change
        most = max(most, now)
    return most


class SideBySide:
    """The processes. Iterating begins them in their order, as room allows, and gives each as it has ended.

    Leaving the block ends those that still go on: as Ctrl-C does, and after 20 s by force.
    """

    def __init__(
        self,
        platform: Platform,
        databases: Sequence[Declared],
        arguments: Callable[[str], Sequence[str]],
        *,
        at_once: int,
        begun: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``arguments`` are typed for a database of this name, with ``--json``; ``begun`` hears each that begins."""
        self._root, self._arguments, self._at_once, self._begun = platform.project.root, arguments, at_once, begun
        self._waiting = {declared.name: server_of(declared) for declared in databases}
        self._servers = dict(self._waiting)
        self._bounds = bounds(databases)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._ended: queue.SimpleQueue[Ended] = queue.SimpleQueue()

    def __enter__(self) -> SideBySide:
        self._before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        signal.signal(signal.SIGTERM, self._before)

    def __iter__(self) -> Iterator[Ended]:
        while True:
            while (name := self._next()) is not None:
                self._begin(name)
            if not self._running:
                return
            yield self._one_ended()

    @property
    def waiting(self) -> tuple[str, ...]:
        """Those that have not begun."""
        return tuple(self._waiting)

    def begin_no_more(self) -> tuple[str, ...]:
        """Those that go on come to their end, no other begins; returns those that will not."""
        left, self._waiting = self.waiting, {}
        return left

    def stop(self) -> list[Ended]:
        """End those that go on, and begin no other; returns how they ended."""
        self.begin_no_more()
        for process in self._running.values():
            assert process.stdin is not None
            process.stdin.close()
        return [self._one_ended() for _ in tuple(self._running)]

    def _next(self) -> str | None:
        """The first that waits for nothing but its turn."""
        if len(self._running) >= self._at_once:
            return None
        busy = Counter(self._servers[name] for name in self._running)
        for name, server in self._waiting.items():
            if server not in self._bounds or busy[server] < self._bounds[server]:
                return name
        return None

    def _begin(self, name: str) -> None:
        del self._waiting[name]
        self._begun(name)
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115, closed by the thread
        began = time.monotonic()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "dbplatform.supervised", sys.executable, "-m", "dbplatform.cli.main"),
                *("-C", str(self._root), *self._arguments(name), "--json"),
            ],
            stdin=subprocess.PIPE,
            stdout=out,
            stderr=err,
            # Ctrl-C at a terminal reaches this process alone, which then closes their pipes.
            start_new_session=True,
        )
        self._running[name] = process
        threading.Thread(target=self._wait, args=(name, process, out, err, began), daemon=True).start()

    def _wait(self, name: str, process: subprocess.Popen[bytes], out: IO[bytes], err: IO[bytes], began: float) -> None:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        with out, err:
            answer = _answer(_read(out))
            document = answer or _no_answer(name, process.returncode, _read(err))
        self._ended.put(
            Ended(
                database=name,
                # Who gave no answer has not said that the work is done, whatever its code.
                exit_code=process.returncode if answer and process.returncode in _EXIT_CODES else 3,
                document=document,
                began=began,
                ended=time.monotonic(),
                # In bytes on macOS, in KiB elsewhere.
                peak_bytes=usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024),
            )
        )

    def _one_ended(self) -> Ended:
        ended = self._ended.get()
        process = self._running.pop(ended.database)
        if process.stdin is not None:
            process.stdin.close()
        return ended


def _read(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode("utf-8", "replace").strip()


def _answer(out: str) -> Mapping[str, Any] | None:
    """The document that was printed; none where it is no such document, or an empty one."""
    with suppress(ValueError):
        found = json.loads(out)
        if isinstance(found, dict):
            return found or None
    return None


def _no_answer(name: str, code: int, err: str) -> Mapping[str, Any]:
    last = f": {err.splitlines()[-1]}" if err else ""
    hint = f"Run it alone to see more: dbplatform --debug ... {name}"
    return {"error": ProcessEnded(database=name, code=code, last=last, hint=hint).as_json()}
