"""What is supervised ends with who holds the pipe, and with nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress

import pytest

from dbplatform import supervised

#: Ends by the signal itself: an exception could come too late for the sleep that has just begun.
_WORK = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_DFL)
print(os.getpid(), flush=True)
time.sleep(600)
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
        assert process.returncode == 256 - signal.SIGINT, "the command was asked to end, and did"
    finally:
        process.kill()
        with suppress(ProcessLookupError):
            os.kill(worker, signal.SIGKILL)
