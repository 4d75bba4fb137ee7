"""``dbplatform wal``: the archive of a server's WAL, from which any moment can be restored."""

from __future__ import annotations

import signal
from contextlib import suppress

import click

from dbplatform.cli.common import (
    SubVerbs,
    bars,
    database_argument,
    dry_run_option,
    json_option,
    note,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.operations import receiving, wal


@click.group("wal", cls=SubVerbs)
def command() -> None:
    """The WAL of the server of a database: what is archived, and the service that receives it."""


@command.command()
@database_argument
@json_option
@click.pass_context
def status(context: click.Context, database: str, as_json: bool) -> int:
    """Which moments can be restored, and how the WAL is archived. Exit 1 on a finding."""
    with bars():
        found = wal.status(*opened(context, database))
    if as_json:
        show_json(found.as_json())
        return 1 if found.findings else 0
    show_table(
        f"{database} can be restored to any moment",
        ("from", "to", "WAL from", "to", "missing"),
        [
            (w["start"], w["end"], w["start_lsn"], w["end_lsn"], w["missing"])
            for w in (window.as_json() for window in found.windows)
        ],
    )
    if found.restore_points:
        show_table(
            None,
            ("restore point", "made", "WAL"),
            [(point.name, f"{point.made_at:%Y-%m-%d %H:%M:%S} UTC", point.lsn) for point in found.restore_points],
        )
    say(f"archive_mode {found.archiving}; {found.waiting} WAL files wait to be brought into the archive")
    if found.slot is not None:
        kept, active = found.slot.kept_bytes, "is" if found.slot.active else "is not"
        say(f"slot {found.slot.name} {active} in use; the server keeps {kept:,} bytes for it")
    for finding in found.findings:
        say(f"  {finding}")
    return 1 if found.findings else 0


@command.command()
@database_argument
@click.option("--once", is_flag=True, help="Bring what is there into the archive and end.")
@dry_run_option
@json_option
@click.pass_context
def receive(context: click.Context, database: str, once: bool, dry_run: bool, as_json: bool) -> None:
    """Receive the WAL of the server of DATABASE and bring it into the archive; runs until it is ended by SIGTERM.

    The embedded server puts its WAL down by itself: then this only brings it into the archive.
    """
    platform, declared = opened(context, database)
    planned = receiving.plan(platform, declared)
    if dry_run:
        show_json(planned.as_json()) if as_json else say(f"would {planned.words}")
        return
    if once:
        caught_up = wal.catch_up(platform, declared)
        document = {"database": database, "caught_up": caught_up}
        show_json(document) if as_json else say(
            "all WAL until now is archived" if caught_up else "what had been received is archived; newer WAL is not yet"
        )
        return
    if not as_json:
        note(planned.words)
    # Both ways of ending it are the same, and no failure.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with bars(), suppress(KeyboardInterrupt):
        receiving.serve(platform, declared, tell=note)
