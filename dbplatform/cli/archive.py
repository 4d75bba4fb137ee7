"""``dbplatform archive``: move old rows into files behind a proven backup, and bring them back."""

from __future__ import annotations

import click

from dbplatform.archiving.plan import ArchivePlan
from dbplatform.cli.common import (
    SubVerbs,
    ask_while_frozen,
    bars,
    bold,
    confirmed,
    database_argument,
    dry_run_option,
    during_freeze_option,
    json_option,
    opened,
    say,
    show_json,
    show_table,
    yes_option,
)
from dbplatform.errors import UsageError
from dbplatform.operations import archives, erasures
from dbplatform.operations.erasures import Chosen, ErasurePlan, ExpiryReport, ReplayReport
from dbplatform.postgres.identifiers import Relation

name_option = click.option("--name", help="Only the archive of this name.")


@click.group("archive", cls=SubVerbs)
def command() -> None:
    """Archives: old rows as Parquet, deleted only when they are proven to be kept."""


@command.command()
@database_argument
@name_option
@json_option
@click.pass_context
def plan(context: click.Context, database: str, name: str | None, as_json: bool) -> None:
    """Which rows are as declared, and how many of them a proven backup holds."""
    platform, declared = opened(context, database)
    found = [archives.plan(platform, declared, policy) for policy in archives.policies(declared, name)]
    if as_json:
        show_json({"database": database, "archives": [one.as_json() for one in found]})
        return
    _show_plan(found)


@command.command()
@database_argument
@name_option
@dry_run_option
@during_freeze_option
@json_option
@click.pass_context
def apply(context: click.Context, database: str, name: str | None, dry_run: bool, as_json: bool) -> None:
    """Write the declared rows to a file, read it back, delete exactly those rows. Lock: row locks, in small batches.

    By partition no row is deleted: partition retire detaches and drops what is in files.
    """
    platform, declared = opened(context, database)
    policies = archives.policies(declared, name)
    planned = [archives.plan(platform, declared, policy) for policy in policies]
    if dry_run:
        document = {"database": database, "archives": [one.as_json() for one in planned]}
        show_json(document) if as_json else _show_plan(planned)
        return
    if not as_json:
        _show_plan(planned)
    if any(one.rows for one in planned):
        ask_while_frozen(context, declared)
    with bars():
        reports = [archives.apply(platform, declared, policy) for policy in policies]
    if as_json:
        show_json({"database": database, "archives": [report.as_json() for report in reports]})
        return
    for policy, report in zip(policies, reports, strict=True):
        if policy.by == "partition":
            rest = f"{report.uncovered:,} not proven stayed out; partition retire lets the partitions go"
            say(f"{bold(report.name)}: {report.written:,} rows of {len(report.archives)} partitions written; {rest}")
            continue
        stayed = f"{report.kept_changed:,} changed meanwhile and {report.uncovered:,} not proven stayed"
        along = "".join(f", {rows:,} of {table} along" for table, rows in report.along.items())
        say(f"{bold(report.name)}: {report.deleted:,} rows archived{along}; {stayed}")
        if report.stopped:
            say(f"  stopped, because {report.stopped}; the next run goes on")


@command.command("list")
@database_argument
@json_option
@click.pass_context
def list_(context: click.Context, database: str, as_json: bool) -> None:
    """The archives that were made."""
    found = [entry.as_json() for entry in archives.known(*opened(context, database))]
    if as_json:
        show_json({"database": database, "archives": found})
        return
    columns = ("id", "name", "table", "rows", "bytes", "status", "created_at")
    show_table(None, columns, [[entry[column] for column in columns] for entry in found])


@command.command()
@database_argument
@click.argument("archive_id", required=False)
@json_option
@click.pass_context
def verify(context: click.Context, database: str, archive_id: str | None, as_json: bool) -> int:
    """Read an archive's file from end to end, or that of every one; exit 1 when one is not what was written."""
    platform, declared = opened(context, database)
    wanted = [archive_id] if archive_id is not None else [str(e.id) for e in archives.known(platform, declared)]
    with bars():
        found = [archives.examine(platform, declared, one) for one in wanted]
    if as_json:
        documents = [one.as_json() for one in found]
        show_json(documents[0] if archive_id is not None else {"database": database, "archives": documents})
    else:
        for one in found:
            say(f"{one.location}: {one.problem or f'{one.rows:,} rows, as written'}")
    return 0 if all(one.passed for one in found) else 1


@command.command()
@database_argument
@click.argument("archive_id")
@click.option("--into", help="Another table; it is made like the source where it is missing.")
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def restore(
    context: click.Context, database: str, archive_id: str, into: str | None, dry_run: bool, yes: bool, as_json: bool
) -> None:
    """Put the rows of an archive back; rows that are there and equal are left, any other row refuses it all."""
    platform, declared = opened(context, database)
    entry = next((e for e in archives.known(platform, declared) if str(e.id) == archive_id), None)
    if entry is not None:
        where = into or entry.table
        if dry_run:
            document = {"id": archive_id, "rows": entry.rows, "into": where}
            show_json(document) if as_json else say(f"would put {entry.rows:,} rows back into {where}")
            return
        ask_while_frozen(context, declared)
        confirmed(f"Put {entry.rows:,} rows back into {where}?", yes=yes)
    with bars():
        report = archives.bring_back(
            platform, declared, archive_id, into=Relation.parse(into) if into is not None else None
        )
    if as_json:
        show_json(report.as_json())
        return
    for one in (report, *report.along):
        kept = f"{one.already_there:,} were there, {one.left_out:,} had never left, {one.erased:,} were erased since"
        say(f"{bold(one.table)}: {one.restored:,} rows restored; {kept}")


@command.command()
@database_argument
@click.option("--table", required=True, help="The table: schema.table.")
@click.option("--where", help="A condition in SQL on the row.")
@click.option("--key", "keys", multiple=True, metavar="COLUMN=VALUE", help="The value of a column; may be repeated.")
@click.option("--note", help="Who asked; it is kept, so write nothing that must not be.")
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def erase(
    context: click.Context,
    database: str,
    table: str,
    where: str | None,
    keys: tuple[str, ...],
    note: str | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Erase rows on purpose, from a table and from its archives, now and again after every restore.

    Lock: row locks, in one transaction; files are written anew beside the old ones.
    """
    values = dict(_column_and_value(one) for one in keys)
    if where is None and not values:
        raise UsageError("Nothing says which rows.", hint="Write --where CONDITION or --key COLUMN=VALUE.")
    chosen, relation = Chosen(where=where, values=values), Relation.parse(table)
    platform, declared = opened(context, database)
    planned = erasures.plan(platform, declared, relation, chosen)
    if dry_run:
        show_json({"database": database, **planned.as_json()}) if as_json else _show_erasure(planned)
        return
    if not as_json:
        _show_erasure(planned)
    if not planned.is_empty:
        ask_while_frozen(context, declared)
        confirmed(f"Erase these rows of {planned.table} for good?", yes=yes)
    with bars():
        reports = erasures.apply(platform, declared, relation, chosen, note=note)
    if as_json:
        show_json({"database": database, "erasures": [report.as_json() for report in reports]})
        return
    for report in reports:
        say(f"{bold(report.table)}: {report.rows:,} rows erased, {len(report.archives)} archives written anew")
    if not reports:
        say("nothing to erase")


@command.command()
@database_argument
@name_option
@dry_run_option
@yes_option
@json_option
@click.pass_context
def expire(context: click.Context, database: str, name: str | None, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Remove archives whose every row is older than `keep`, by their own content; exit 1 where one cannot be read.

    Removals and erasures that were killed half-way are finished first, those of every archive of the database.
    """
    platform, declared = opened(context, database)
    policies = erasures.policies_that_expire(declared, name)
    begun = len(erasures.unfinished(platform, declared))
    with bars():
        found = [erasures.plan_expiry(platform, declared, policy) for policy in policies]
    if not as_json:
        _show_expiry(found)
        if begun:
            say(f"{begun} removals and erasures were interrupted; what is left of them goes first")
    files = sum(1 + len(one.along) for report in found for one in report.due)
    if (files or begun) and not dry_run:
        what = f"{files} archives and their rows" if files else "what is left of them"
        confirmed(f"Remove {what} for good?", yes=yes)
        with bars():
            found = [erasures.apply_expiry(platform, declared, policy) for policy in policies]
        if not as_json:
            finished = f", finished {begun} interrupted removals" if begun else ""
            say(f"removed {sum(1 + len(one.along) for report in found for one in report.due)} archives{finished}")
    if as_json:
        documents = [report.as_json() for report in found]
        show_json({"database": database, "archives": documents, "interrupted": begun})
    return 1 if any(report.problems for report in found) else 0


@command.command()
@database_argument
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def replay(context: click.Context, database: str, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Erase again what was erased on purpose and came back, after a restore by other means than `restore`."""
    platform, declared = opened(context, database)
    report = erasures.plan_again(platform, declared)
    if not dry_run and report.erasures:
        if not as_json:
            _show_replay(report, "still there")
        ask_while_frozen(context, declared)
        confirmed(f"Erase these rows of {database} again?", yes=yes)
        report = erasures.erase_again(platform, declared)
    if as_json:
        show_json({"database": database, **report.as_json()})
    else:
        _show_replay(report, "still there" if dry_run else "erased again")


def _column_and_value(text: str) -> tuple[str, str]:
    column, sign, value = text.partition("=")
    if not sign or not column:
        raise UsageError(f"--key {text} names no column and value.", hint="Write --key COLUMN=VALUE.")
    return column, value


def _show_erasure(planned: ErasurePlan) -> None:
    say(f"{bold(planned.table)}: {planned.rows:,} rows in the table")
    for entry, rows in planned.archives:
        say(f"  {rows:,} of {entry.rows:,} rows in {entry.location}")


def _show_expiry(found: list[ExpiryReport]) -> None:
    for report in found:
        say(f"{bold(report.name)}: rows are kept back to {report.before:%Y-%m-%d}")
        for one in report.archives:
            age = f"newest row {one.newest:%Y-%m-%d}" if one.newest else "no age"
            fate = "goes" if one.due else "stays"
            say(f"  {one.entry.location}: {one.problem or f'{age}, {fate}'}")


def _show_replay(report: ReplayReport, outcome: str) -> None:
    for table, rows in report.rows.items():
        say(f"{bold(table)}: {rows:,} rows {outcome}")
    if not report.rows:
        say("nothing has come back")


def _show_plan(found: list[ArchivePlan]) -> None:
    for one in found:
        proven = "no proven backup holds them" if one.covered_rows is None else f"{one.covered_rows:,} of them proven"
        say(f"{bold(one.policy.name)}: {one.rows:,} rows of {one.policy.table} {one.rule}, {proven}")
        for child in one.children:
            say(f"  along with them: {child.rows:,} rows of {child.node.table}")
