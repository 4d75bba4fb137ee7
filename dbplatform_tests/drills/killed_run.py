"""The command line, killed by SIGKILL at a chosen point of its own progress: ``TASK DONE ARGUMENT...``.

Work tells how far it is; this process ends itself, without any clean-up, when it hears that ``TASK`` has reached
``DONE``. So a drill dies at the same statement every time, without a sleep.
"""

from __future__ import annotations

import os
import signal
import sys

from dbplatform import progress
from dbplatform.cli.main import main


def run(task: str, done: int, arguments: list[str]) -> None:
    """Run the command; never returns when the point is reached."""

    def die(fact: progress.Progress) -> None:
        if fact.task == task and fact.done >= done:
            os.kill(os.getpid(), signal.SIGKILL)

    with progress.listening(die):
        main(arguments)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), sys.argv[3:])
