"""Runs one command and ends it, with all that it started, as soon as standard input closes.

``dbplatform dev`` holds the other end of that pipe, or who runs pg_repack: so Dagster and pg_repack end with them even
when they are killed.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

_SECONDS = 20.0


def supervise(command: list[str]) -> int:
    """The command's exit code; it runs in a session of its own, so that the whole group can be ended."""
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    def watch() -> None:
        # Not by the buffered reader, whose lock the interpreter wants when the command has ended first.
        while os.read(sys.stdin.fileno(), 4096):
            pass
        end(child)

    threading.Thread(target=watch, daemon=True).start()
    code = child.wait()
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    return code


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask the group to end, then make it."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(timeout=_SECONDS)
        os.killpg(child.pid, signal.SIGKILL)


if __name__ == "__main__":
    # Ctrl-C and a closed terminal reach the whole group: they are for who holds the pipe, whose end closes it. Not
    # SIG_IGN: the command would inherit that.
    for one in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(one, lambda *_: None)
    sys.exit(supervise(sys.argv[1:]))
