"""``dbplatform dev``: the Dagster UI, its daemon, the code location and the status service, in one terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime

import click

from dbplatform.cli.common import note, platform_of, port_option
from dbplatform.errors import WorkError

#: Warnings of Dagster about itself, which nobody here can do anything about.
_QUIET = "ignore:Function `dev_command`:FutureWarning,ignore:Parameter `execution_type` of function"


class DagsterEnded(WorkError):
    """Dagster ended with exit code {code}."""


@click.command()
@port_option("--port", default=3000, help="The port of the Dagster UI.")
@port_option("--service-port", default=8765, help="The port of the status service.")
@click.pass_context
def command(context: click.Context, port: int, service_port: int) -> None:
    """Everything for a working day, until it is stopped by Ctrl-C. Schedules run while it does."""
    from dbplatform.operations import heartbeats
    from dbplatform.operations.deadman import DeadMansSwitch, watch_the_watch
    from dbplatform.orchestration import instance as instances
    from dbplatform.web.app import create_app
    from dbplatform.web.location import location_of, pushed_of
    from dbplatform.web.push.service import Push
    from dbplatform.web.server import listen, serve

    listen("127.0.0.1", port, what="the Dagster UI", option="--port").close()
    listening = listen("127.0.0.1", service_port, option="--service-port")
    platform = platform_of(context)
    instances.prepare_instance(platform)
    os.environ["DBPLATFORM_PROJECT"] = str(platform.project.root)
    os.environ.setdefault("DBPLATFORM_DAGSTER_UI", f"http://127.0.0.1:{port}")
    os.environ.setdefault("DBPLATFORM_SERVICE_URL", f"http://127.0.0.1:{service_port}")
    app = create_app(
        platform.ledger,
        platform.home.reports,
        dagster_url=os.environ["DBPLATFORM_DAGSTER_UI"],
        location=location_of(platform),
        push=Push(pushed_of(platform)),
    )
    workspace = str(platform.home.dagster / instances.WORKSPACE)
    dagster = subprocess.Popen(
        [
            *(sys.executable, "-m", "dbplatform.supervised", sys.executable, "-m", "dagster", "dev"),
            *("--workspace", workspace, "--host", "127.0.0.1", "--port", str(port)),
        ],
        cwd=platform.home.dagster,
        env={**os.environ, "PYTHONWARNINGS": _QUIET},
        stdin=subprocess.PIPE,
        start_new_session=True,
    )
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    ended = threading.Event()

    def watch() -> None:
        dagster.wait()
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, daemon=True).start()
    switch = DeadMansSwitch(platform, platform.declarations.databases)
    looking = watch_the_watch(switch, ended)
    note(f"reports: http://127.0.0.1:{service_port}   Dagster UI: http://127.0.0.1:{port}, when it says Serving")
    note("Ctrl-C stops both.")
    try:
        serve(app, listening)
    finally:
        ended.set()
        died_by_itself = dagster.poll()
        assert dagster.stdin is not None
        dagster.stdin.close()
        dagster.wait()
        looking.join()
    if died_by_itself is None:
        switch.sign_off(heartbeats.WATCH, heartbeats.QUEUE)
    else:
        for problem in switch.daemon_ended(datetime.now(UTC)):
            note(problem)
        raise DagsterEnded(code=died_by_itself, hint="Its own words are above.")
