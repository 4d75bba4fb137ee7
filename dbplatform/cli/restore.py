"""``dbplatform restore``: bring a backup back, beside the database or in its place."""

from __future__ import annotations

import click

from dbplatform.cli import physical
from dbplatform.cli.common import (
    bars,
    confirmed,
    database_argument,
    dry_run_option,
    json_option,
    note,
    opened,
    say,
    show_json,
    yes_option,
)
from dbplatform.errors import UsageError
from dbplatform.operations import backups
from dbplatform.postgres.identifiers import Relation


@click.command("restore")
@database_argument
@click.option("--backup", "backup_id", help="The backup; by default the newest complete one.")
@click.option("--into", help="The new database, on the server of DATABASE.")
@click.option("--table", help="One table alone: back in its place, if it is gone.")
@click.option("--aside", metavar="SCHEMA", help="With --table: into this new schema of DATABASE.")
@click.option("--replace", help="Restore over the database of this name: say its name again.")
@click.option("--time", "point", help="Every commit before this time, ISO 8601 with its offset; or latest.")
@click.option("--lsn", help="As it was at this WAL position, such as 16/B374D848.")
@click.option("--restore-point", help="As it was at a named restore point.")
@dry_run_option
@yes_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    database: str,
    backup_id: str | None,
    into: str | None,
    table: str | None,
    aside: str | None,
    replace: str | None,
    point: str | None,
    lsn: str | None,
    restore_point: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Restore a backup into a database, compared with what was dumped before it gets its name.

    By a time, a position, a restore point or the id of a physical backup the whole server is recovered aside, and the
    database copied out of it.
    """
    if table is not None:
        _table(context, database, table, backup_id, aside, into, replace, dry_run=dry_run, as_json=as_json)
        return
    if aside is not None:
        raise UsageError("--aside is for one table.", hint="Name it: --table public.t")
    name = into or replace
    if name is None:
        raise UsageError(
            "restore needs to know where to.",
            hint=f"Beside the database: --into {database}_restored. In its place: --replace {database}.",
        )
    platform, declared = opened(context, database)
    moment = physical.moment_of(platform, declared, time=point, lsn=lsn, restore_point=restore_point, backup=backup_id)
    if moment is not None:
        physical.restore(
            platform, declared, moment, into=name, replace=replace, dry_run=dry_run, yes=yes, as_json=as_json
        )
        return
    backup = backups.plan_restore(platform, declared, backup_id=backup_id, into=name, replace=replace)
    plan = f"backup {backup.id} into the database {name}" + (", which is replaced" if replace else "")
    if dry_run:
        show_json({"backup_id": backup.id, "into": name, "replace": replace}) if as_json else say(
            f"would restore {plan}"
        )
        return
    if not as_json:
        note(f"restoring {plan}")
    if replace:
        confirmed(f"Drop the database {replace} and put the backup in its place?", yes=yes)
    with bars():
        report = backups.bring_back(platform, declared, backup, into=name, replace=replace)
    if as_json:
        show_json(report.as_json())
        return
    say(f"restored {plan}; every table equals what was dumped")
    _say_erased(report.erased_again)


def _table(
    context: click.Context,
    database: str,
    table: str,
    backup_id: str | None,
    aside: str | None,
    into: str | None,
    replace: str | None,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Restore one table."""
    if replace or (aside and into):
        raise UsageError(
            "One table goes to one place, and never over another.",
            hint="In its place, if it is gone: no option. Beside it: --aside SCHEMA. Into a new database: --into NAME.",
        )
    try:
        relation = Relation.parse(table)
    except ValueError as error:
        raise UsageError(f"{error}.", hint="Write --table public.t") from None
    platform, declared = opened(context, database)
    backup = backups.plan_table(platform, declared, relation, backup_id=backup_id, aside=aside, into=into)
    place = f"the new database {into}" if into else f"the new schema {aside}" if aside else f"its place in {database}"
    plan = f"{relation} of backup {backup.id} into {place}"
    if dry_run:
        document = {"backup_id": backup.id, "table": str(relation), "aside": aside, "into": into}
        show_json(document) if as_json else say(f"would restore {plan}")
        return
    if not as_json:
        note(f"restoring {plan}")
    with bars():
        report = backups.bring_back_table(platform, declared, backup, relation, aside=aside, into=into)
    if as_json:
        show_json(report.as_json())
        return
    say(f"restored {plan}: {report.rows:,} rows, as they were dumped")
    for missing in report.notes:
        say(f"  {missing}")
    _say_erased(report.erased_again)


def _say_erased(erased_again: dict[str, int]) -> None:
    for table, rows in erased_again.items():
        say(f"but for {rows:,} rows of {table} that were erased on purpose since the backup, and are again")
