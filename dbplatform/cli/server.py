"""``dbplatform server``: the embedded PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import click

from dbplatform.cli.common import confirmed, dry_run_option, json_option, platform_of, say, show_json, yes_option
from dbplatform.errors import UsageError
from dbplatform.postgres.embedded.place import forgotten_servers, remove_forgotten


@click.group()
def command() -> None:
    """The embedded PostgreSQL: for the examples, tests and scratch restores."""


@command.command()
@dry_run_option
@json_option
@click.pass_context
def start(context: click.Context, dry_run: bool, as_json: bool) -> None:
    """Start it; fine when it runs already."""
    server = platform_of(context).server
    status = server.status()
    if dry_run and not status.running:
        show_json(status.as_json()) if as_json else say(f"would start PostgreSQL over {status.data_directory}")
        return
    status = server.start()
    if as_json:
        show_json(status.as_json())
    else:
        say(f"PostgreSQL {status.version} runs on {status.host}:{status.port} (pid {status.pid})")


@command.command()
@dry_run_option
@json_option
@click.pass_context
def stop(context: click.Context, dry_run: bool, as_json: bool) -> None:
    """Stop it: sessions are ended, transactions rolled back."""
    server = platform_of(context).server
    if dry_run:
        running = server.status().running
        show_json(server.status().as_json()) if as_json else say(
            "would stop PostgreSQL" if running else "PostgreSQL does not run"
        )
        return
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
@click.option("--forgotten", is_flag=True, help="Those of homes that are gone, in /var/lib/dbplatform; not this one's.")
@dry_run_option
@yes_option
@json_option
@click.pass_context
def remove(context: click.Context, forgotten: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Stop it and delete its data, for good: databases, ledger and all. Backups and archives stay."""
    server = platform_of(context).server
    folders = [str(folder) for folder in (forgotten_servers() if forgotten else server.folders)]
    if dry_run or not folders:
        words = "\n".join(f"would remove {folder}" for folder in folders) or "there is nothing to remove"
        show_json({"folders": folders, "removed": False}) if as_json else say(words)
        return
    if not as_json:
        say("\n".join(folders))
    confirmed("Delete what is in there for good, with every database?", yes=yes)
    if forgotten:
        for folder in folders:
            remove_forgotten(Path(folder))
    else:
        server.remove()
    show_json({"folders": folders, "removed": True}) if as_json else say("removed")


@command.command()
@click.argument("database", required=False, default="postgres")
@json_option
@click.pass_context
def url(context: click.Context, database: str, as_json: bool) -> None:
    """Print the URL of a database, password included: for psql and other programs."""
    server = platform_of(context).server
    found = server.url(database)
    if not server.has_database(database):
        raise UsageError(
            f"There is no database {database!r} on the embedded server.",
            hint="See which are declared: dbplatform list; one is created when work on it begins.",
        )
    show_json({"database": database, "url": found}) if as_json else say(found)
