"""``dbplatform backup``: take, list, verify and prune the backups of a database."""

from __future__ import annotations

from pathlib import Path

import click

from dbplatform.backups.keys import new_key
from dbplatform.backups.prune import PrunePlan
from dbplatform.cli import physical
from dbplatform.cli.common import (
    SubVerbs,
    bars,
    confirmed,
    database_argument,
    dry_run_option,
    json_option,
    note,
    opened,
    say,
    show_json,
    show_table,
    yes_option,
)
from dbplatform.errors import UsageError
from dbplatform.operations import backups, recovery, wal


@click.group("backup", cls=SubVerbs)
def command() -> None:
    """Backups by pg_dump, each with a manifest; a drill proves them."""


@command.command()
@database_argument
@click.option("--kind", type=click.Choice(["logical", "physical"]), default="logical", show_default=True)
@click.option(
    "--only",
    multiple=True,
    metavar="schema|data|TABLE",
    help="A part alone: the schema, the rows, or tables (once for each). It proves nothing of the database.",
)
@click.option("--full", is_flag=True, help="Of kind physical: not an incremental one.")
@dry_run_option
@json_option
@click.pass_context
def create(
    context: click.Context,
    database: str,
    kind: str,
    only: tuple[str, ...],
    full: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Take a backup. A logical one, of the database: ACCESS SHARE on every table, holds back vacuum while it lasts. A
    physical one, of its whole server, locks nothing."""
    platform, declared = opened(context, database)
    if kind == "physical":
        if only:
            raise UsageError("A physical backup holds the whole server.", hint="Leave --only out.")
        physical.create(platform, declared, full=full, dry_run=dry_run, as_json=as_json)
        return
    scope = backups.scope_of(only)
    folder = backups.destination_of(platform, declared).location(database)
    what = database if scope.whole else f"of {database} {scope}"
    if dry_run:
        plan = {"database": database, "kind": kind, "scope": str(scope), "folder": folder}
        show_json(plan) if as_json else say(f"would dump {what} into a new folder of {folder}")
        return
    if not as_json:
        note(f"dumping {what} into {folder}")
    with bars():
        backup = backups.take(platform, declared, only=only)
    if as_json:
        show_json({"database": database, **backup.as_json()})
    else:
        say(f"backup {backup.id}: {backup.bytes or 0:,} bytes in {backup.location}")
        if scope.whole:
            say(f"It counts when a restore has proven it: dbplatform drill {database}")
        else:
            say("It is of a part: no drill proves it, and nothing is archived or pruned behind it.")


@command.command("list")
@database_argument
@json_option
@click.pass_context
def list_(context: click.Context, database: str, as_json: bool) -> None:
    """The backups, the newest first, with their proof; those of the database, then those of its server."""
    platform, declared = opened(context, database)
    found = (*backups.known(platform, declared), *wal.known(platform, declared))
    if as_json:
        show_json({"database": database, "backups": [backup.as_json() for backup in found]})
        return
    show_table(
        None,
        ("backup", "kind", "status", "holds", "proven", "bytes", "note"),
        [
            (
                b.id,
                b.kind,
                b.status,
                b.scope,
                b.proven_at and f"{b.proven_at:%Y-%m-%d %H:%M} UTC",
                b.bytes,
                b.damage or b.error,
            )
            for b in found
        ],
    )


@command.command()
@database_argument
@click.argument("backup_id", required=False)
@json_option
@click.pass_context
def verify(context: click.Context, database: str, backup_id: str | None, as_json: bool) -> int:
    """Read a backup from end to end, by default the newest; exit 1 when it is damaged."""
    platform, declared = opened(context, database)
    with bars():
        if backup_id is not None and recovery.is_physical(platform, declared, backup_id):
            found = recovery.examine(platform, declared, backup_id)
        else:
            found = backups.examine(platform, declared, backup_id)
    if as_json:
        show_json({"database": database, **found.as_json()})
    else:
        say(f"backup {found.backup_id}: {found.files} files, {found.bytes:,} bytes read")
        for problem in found.problems:
            say(f"  DAMAGED {problem}")
        if found.passed:
            say("  every file is what was written; that it can be restored is shown by a drill alone")
        if not found.inside:
            say("  It is encrypted and no key is given: nobody looked inside.")
    return 0 if found.passed else 1


@command.command()
@database_argument
@json_option
@click.pass_context
def rebuild(context: click.Context, database: str, as_json: bool) -> None:
    """List again what lies at the destination and the ledger does not know; removes nothing."""
    found = backups.rebuild(*opened(context, database))
    show_json({"database": database, "found": list(found)}) if as_json else say(
        f"taken up: {', '.join(found) or 'none; the ledger knows every backup there'}"
    )


@command.command()
@database_argument
@click.argument("backup_id", required=False)
@click.option("--to", "file", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A new file.")
@click.pass_context
def roles(context: click.Context, database: str, backup_id: str | None, file: Path) -> None:
    """Write the server's roles, as they were, into a file of SQL; passwords only out of an encrypted backup."""
    backup = backups.write_roles(*opened(context, database), backup_id, file)
    say(f"the roles of backup {backup.id} are in {file}; run by psql what another server needs of it")


@command.command()
@click.option("--to", "file", type=click.Path(path_type=Path, dir_okay=False), required=True, help="A new file.")
def key(file: Path) -> None:
    """Make a pair of keys: the secret one into a file, the public one for encrypt_to is shown."""
    recipient = new_key(file)
    note(f"The secret key is in {file}: keep it, and a copy elsewhere, away from the hosts that back up.")
    say(recipient)


@command.command()
@database_argument
@click.option("--kind", type=click.Choice(["logical", "physical"]), default="logical", show_default=True)
@dry_run_option
@yes_option
@json_option
@click.pass_context
def prune(context: click.Context, database: str, kind: str, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove what the retention does not keep; never the newest proven backup. Exit 1 when nothing may be removed.

    Of kind physical: base backups of the server, and the WAL before the recovery window.
    """
    platform, declared = opened(context, database)
    if kind == "physical":
        return physical.prune(platform, declared, dry_run=dry_run, yes=yes, as_json=as_json)
    planned = backups.plan_prune(platform, declared)
    if not as_json or dry_run:
        show_json(planned.as_json()) if as_json else _show_plan(planned)
    if planned.refusal:
        if as_json and not dry_run:
            show_json(planned.as_json())
        return 1
    if dry_run or (not planned.prune and not as_json):
        return 0
    confirmed(f"Remove {len(planned.prune)} backups?", yes=yes or not planned.prune)
    report = backups.apply_prune(platform, declared, planned)
    show_json(report.as_json()) if as_json else say(f"removed: {', '.join(report.pruned) or 'none'}")
    return 0


def _show_plan(planned: PrunePlan) -> None:
    if planned.refusal:
        say(f"Nothing is removed: {planned.refusal}")
        return
    show_table(
        f"{planned.database}: {len(planned.keep)} stay, {len(planned.prune)} go",
        ("backup", "why"),
        [(kept.backup.id, ", ".join(kept.reasons)) for kept in planned.keep]
        + [(backup.id, "REMOVED") for backup in planned.prune],
    )


@command.command("restore-point")
@database_argument
@click.argument("name")
@dry_run_option
@json_option
@click.pass_context
def restore_point(context: click.Context, database: str, name: str, dry_run: bool, as_json: bool) -> None:
    """Give this moment a name, on the server of DATABASE: restore --restore-point NAME comes back to it."""
    platform, declared = opened(context, database)
    physical.restore_point(platform, declared, name, dry_run=dry_run, as_json=as_json)
