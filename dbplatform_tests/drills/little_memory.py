"""The command line in a process that is refused memory beyond a bound: ``BYTES ARGUMENT...``.

With ``measure`` in place of the bound there is none, and the last line on standard error is the most that the process
held, as it was seen at each step of its own progress. The programs that it starts have the same bound, each for itself.
"""

from __future__ import annotations

import re
import resource
import sys
from pathlib import Path

from dbplatform import progress
from dbplatform.cli.main import main

MEASURE = "measure"


def held() -> int:
    """The bytes that count against the bound: heap, stacks of threads, what is mapped to be written (proc(5))."""
    found = re.search(r"^VmData:\s+(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def measured(arguments: list[str]) -> None:
    """Run the command, then say how much it held."""
    most = held()

    def look(_: progress.Progress) -> None:
        nonlocal most
        most = max(most, held())

    try:
        with progress.listening(look):
            main(arguments)
    finally:
        print(max(most, held()), file=sys.stderr)


if __name__ == "__main__":
    bound, arguments = sys.argv[1], sys.argv[2:]
    if bound == MEASURE:
        measured(arguments)
    resource.setrlimit(resource.RLIMIT_DATA, (int(bound), resource.getrlimit(resource.RLIMIT_DATA)[1]))
    main(arguments)
