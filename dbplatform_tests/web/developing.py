"""``dbplatform dev`` for the tests that look at Dagster's UI."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from dbplatform_tests.installation import Installation, free_port

_SECONDS = 180
_READY = "Serving dagster-webserver"


@dataclass(frozen=True)
class Dev:
    """A running ``dbplatform dev``."""

    ui: str

    @property
    def run_id(self) -> str:
        """The newest finished run of the main job."""
        found = self.graphql(
            'query { runsOrError(filter: {pipelineName: "flights", statuses: [SUCCESS]}, limit: 1) '
            "{ ... on Runs { results { runId } } } }"
        )
        [run] = found["runsOrError"]["results"]
        return str(run["runId"])

    def graphql(self, query: str, **variables: Any) -> Any:
        request = urllib.request.Request(
            f"{self.ui}/graphql",
            data=json.dumps({"query": query, "variables": variables}).encode(),
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            return json.load(answer)["data"]


@contextmanager
def developing(installation: Installation) -> Iterator[Dev]:
    """``dbplatform dev`` while the block runs; Ctrl-C ends it, and everything that it started with it."""
    port, service_port = free_port(), installation.service_port
    arguments = ["dev", "--port", str(port), "--service-port", str(service_port)]
    process = subprocess.Popen(
        [sys.executable, "-m", "dbplatform.cli.main", *arguments],
        cwd=installation.folder,
        env=installation.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    too_late = threading.Timer(_SECONDS, process.kill)
    too_late.start()
    said = []
    for line in process.stdout:
        said.append(line)
        if _READY in line:
            break
    too_late.cancel()
    # Nobody reads what it says from now on, but it must be able to go on saying it.
    rest = threading.Thread(target=process.stdout.read)
    rest.start()
    try:
        assert _READY in "".join(said[-1:]), "".join(said)
        _wait_for(port)
        yield Dev(f"http://127.0.0.1:{port}")
    finally:
        process.send_signal(signal.SIGINT)
        # The pipe ends with the last process that can write to it: so with everything that dev has started.
        rest.join(timeout=60)
        process.wait(timeout=60)
    assert not rest.is_alive()
    assert process.returncode == 0
    with socket.socket() as listening:
        assert listening.connect_ex(("127.0.0.1", port)) != 0, "the UI outlived its parent"


def _wait_for(port: int) -> None:
    """Until the UI can be opened: it says that it serves somewhat earlier, and by nothing that it does."""
    until = time.monotonic() + _SECONDS
    while True:
        with socket.socket() as asked:
            if asked.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < until, "the UI never listened"
        time.sleep(0.2)
