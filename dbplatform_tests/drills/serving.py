"""``dbplatform serve`` as a process of its own, for as long as a test needs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from dbplatform_tests.installation import Installation

_TRIES = 10


@dataclass(frozen=True)
class Served:
    """A running service."""

    address: str
    log: Path
    pid: int

    @property
    def resident_kb(self) -> int:
        """The memory of the process, as Linux counts it."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1])


@contextmanager
def serving(installation: Installation, *options: str) -> Iterator[Served]:
    """The service, from when it is ready until the end of the block."""
    log = installation.folder / "serve.log"
    address = f"http://127.0.0.1:{installation.service_port}"
    arguments = ["serve", "--port", str(installation.service_port), *options]
    with log.open("w") as written:
        process = subprocess.Popen(
            [sys.executable, "-m", "dbplatform.cli.main", *arguments],
            cwd=installation.folder,
            env=installation.environment,
            stdout=written,
            stderr=subprocess.STDOUT,
        )
        try:
            with httpx.Client(transport=httpx.HTTPTransport(retries=_TRIES), timeout=60) as client:
                assert client.get(f"{address}/readyz").status_code == 200, log.read_text()
            yield Served(address, log, process.pid)
        finally:
            process.terminate()
            process.wait(timeout=30)
