"""``dbplatform server``: the embedded PostgreSQL."""

from __future__ import annotations

import click

from dbplatform.cli.common import json_option, platform_of, say, show_json


@click.group()
def command() -> None:
    """The embedded PostgreSQL: for the examples, tests and scratch restores."""


@command.command()
@json_option
@click.pass_context
def start(context: click.Context, as_json: bool) -> None:
    """Start it; fine when it runs already."""
    status = platform_of(context).server.start()
    if as_json:
        show_json(status.as_json())
    else:
        say(f"PostgreSQL {status.version} runs on {status.host}:{status.port} (pid {status.pid})")


@command.command()
@json_option
@click.pass_context
def stop(context: click.Context, as_json: bool) -> None:
    """Stop it: sessions are ended, transactions rolled back."""
    server = platform_of(context).server
    server.stop()
    if as_json:
        show_json(server.status().as_json())
    else:
        say("PostgreSQL is stopped")


@command.command()
@json_option
@click.pass_context
def status(context: click.Context, as_json: bool) -> int:
    """Whether it runs, and where. Exit 1 when it does not run."""
    found = platform_of(context).server.status()
    if as_json:
        show_json(found.as_json())
    elif found.running:
        say(f"PostgreSQL {found.version} runs on {found.host}:{found.port} (pid {found.pid})")
        say(f"log: {found.log_file}")
    else:
        say("PostgreSQL does not run; start it by: dbplatform server start")
    return 0 if found.running else 1


@command.command()
@click.argument("database", required=False, default="postgres")
@click.pass_context
def url(context: click.Context, database: str) -> None:
    """Print the URL of a database, password included: for psql and other programs."""
    click.echo(platform_of(context).server.url(database))
