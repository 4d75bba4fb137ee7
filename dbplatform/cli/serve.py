"""``dbplatform serve``: the status service alone."""

from __future__ import annotations

import ipaddress
import threading
from typing import Any

import click

from dbplatform.addresses import dagster_address
from dbplatform.cli.common import note, platform_of, port_option


class _Network(click.ParamType[Any]):
    """An address, or a network of addresses."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return ipaddress.ip_network(value)
        except ValueError as error:
            self.fail(f"{error}.", param, ctx)


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
@port_option("--port", default=8765, help="The port to listen on.")
@click.option("--tokens", is_flag=True, help="Ask for a token on this machine, too; elsewhere it is always asked for.")
@click.option("--trusted-proxy", "proxies", type=_Network(), multiple=True, help="A reverse proxy that names the user.")
@click.option("--user-header", default="X-Forwarded-User", show_default=True, help="The header that it names them by.")
@click.option(
    "--proxy-scope",
    type=click.Choice(["read", "act"]),
    default="read",
    show_default=True,
    help="What the users that it names may do.",
)
@click.option("--name", "names", multiple=True, help="Another name of this service that browsers may use.")
@click.pass_context
def command(
    context: click.Context,
    host: str,
    port: int,
    tokens: bool,
    proxies: tuple[Any, ...],
    user_header: str,
    proxy_scope: str,
    names: tuple[str, ...],
) -> None:
    """The status service: reports, their index and the API, until it is stopped by Ctrl-C.

    On this machine alone it asks nobody for a token. It listens elsewhere only where somebody could be let in: with a
    token (dbplatform token create), or by a reverse proxy that is trusted.

    It is the dead man's switch, too: when the daemon stops watching, or the ledger is gone, it tells every channel.
    """
    from dbplatform.operations.deadman import DeadMansSwitch, watch_the_watch
    from dbplatform.web.access import Access, require_somebody
    from dbplatform.web.app import create_app
    from dbplatform.web.location import location_of, pushed_of
    from dbplatform.web.push.service import Push
    from dbplatform.web.server import is_loopback, listen, serve

    platform = platform_of(context)
    asked = tokens or not is_loopback(host)
    if asked and not proxies:
        require_somebody(platform.ledger, host)
    access = Access(
        tokens=asked, proxies=proxies, user_header=user_header, proxy_scope="act" if proxy_scope == "act" else "read"
    )
    with listen(host, port) as listening:
        app = create_app(
            platform.ledger,
            platform.home.reports,
            dagster_url=dagster_address(),
            location=location_of(platform),
            access=access,
            push=Push(pushed_of(platform)),
        )
        note(f"reports: http://{host}:{port}/   (Ctrl-C stops)")
        ended = threading.Event()
        switch = watch_the_watch(DeadMansSwitch(platform, platform.declarations.databases), ended)
        try:
            serve(app, listening, names=names)
        finally:
            ended.set()
            switch.join()
