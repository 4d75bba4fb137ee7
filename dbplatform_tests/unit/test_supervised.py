"""What is supervised ends with who holds the pipe, and with nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from dbplatform import supervised

_WORK = """
import os, sys, time
try:
    print(os.getpid(), flush=True)
    time.sleep(600)
except KeyboardInterrupt:
    sys.exit(7)
"""


@pytest.mark.parametrize("signal_", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_leaves_the_supervisor_to_end_its_command(signal_: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", supervised.__file__, sys.executable, "-c", _WORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    try:
        os.killpg(process.pid, signal_)
        # Closes the pipe, as the end of its holder does.
        process.communicate(timeout=60)
        assert process.returncode == 7, "the command was asked to end, and did"
    finally:
        process.kill()
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
