"""``dbplatform dev``: the Dagster UI, its daemon, the code location and the status service, in one terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress

import click

from dbplatform.cli.common import note, platform_of
from dbplatform.errors import WorkError


class DagsterEnded(WorkError):
    """Dagster ended with exit code {code}."""


@click.command()
@click.option("--port", default=3000, show_default=True, help="The port of the Dagster UI.")
@click.option("--service-port", default=8765, show_default=True, help="The port of the status service.")
@click.pass_context
def command(context: click.Context, port: int, service_port: int) -> None:
    """Everything for a working day, until it is stopped by Ctrl-C. Schedules run while it does."""
    from dbplatform.orchestration import instance as instances
    from dbplatform.web.app import create_app
    from dbplatform.web.server import listen, serve

    platform = platform_of(context)
    instances.prepare_instance(platform)
    listen("127.0.0.1", port).close()
    listen("127.0.0.1", service_port).close()
    os.environ["DBPLATFORM_PROJECT"] = str(platform.project.root)
    os.environ["DBPLATFORM_DAGSTER_UI"] = f"http://127.0.0.1:{port}"
    os.environ["DBPLATFORM_SERVICE_URL"] = f"http://127.0.0.1:{service_port}"
    app = create_app(platform.ledger, platform.home.reports, dagster_url=os.environ["DBPLATFORM_DAGSTER_UI"])
    workspace = str(platform.home.dagster / instances.WORKSPACE)
    dagster = subprocess.Popen(
        [sys.executable, "-m", "dagster", "dev", "--workspace", workspace, "--host", "127.0.0.1", "--port", str(port)],
        cwd=platform.home.dagster,
        env={**os.environ, "PYTHONWARNINGS": "ignore:Function `dev_command`:FutureWarning"},
        start_new_session=True,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ended = threading.Event()

    def watch() -> None:
        dagster.wait()
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    note(f"Dagster UI: http://127.0.0.1:{port}   reports: http://127.0.0.1:{service_port}   (Ctrl-C stops both)")
    try:
        serve(app, port=service_port)
    finally:
        ended.set()
        died_by_itself = dagster.poll()
        _end(dagster)
    if died_by_itself is not None:
        raise DagsterEnded(code=died_by_itself, hint="Its own words are above.")


def _end(dagster: subprocess.Popen[bytes]) -> None:
    """End Dagster and all that it started: it does not do so by itself when its parent goes."""
    if dagster.poll() is None:
        os.killpg(dagster.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            dagster.wait(timeout=20)
    with suppress(ProcessLookupError):
        os.killpg(dagster.pid, signal.SIGKILL)
