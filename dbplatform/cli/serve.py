"""``dbplatform serve``: the status service alone."""

from __future__ import annotations

import threading
from functools import partial

import click

from dbplatform.addresses import dagster_address
from dbplatform.cli.common import note, platform_of, port_option


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@port_option("--port", default=8765, help="The port to listen on.")
@click.pass_context
def command(context: click.Context, host: str, port: int) -> None:
    """The status service: reports, their index and the API, until it is stopped by Ctrl-C.

    It is the dead man's switch, too: when the daemon stops watching, or the ledger is gone, it tells every channel.
    """
    from dbplatform.operations import watching
    from dbplatform.operations.deadman import DeadMansSwitch, watch_the_watch
    from dbplatform.web.app import create_app
    from dbplatform.web.server import is_loopback, listen, serve
    from dbplatform.web.writing import Writing

    listening = listen(host, port)
    platform = platform_of(context)
    app = create_app(
        platform.ledger,
        platform.home.reports,
        dagster_url=dagster_address(),
        writing=Writing.declared(open_to_others=not is_loopback(host)),
        limits=partial(watching.limits_of, platform),
    )
    note(f"reports: http://{host}:{port}/   (Ctrl-C stops)")
    ended = threading.Event()
    switch = watch_the_watch(DeadMansSwitch(platform, platform.declarations.databases), ended)
    try:
        serve(app, listening)
    finally:
        ended.set()
        switch.join()
