"""``dbplatform archive``: move old rows into files behind a proven backup, and bring them back."""

from __future__ import annotations

import click

from dbplatform.archiving.plan import ArchivePlan
from dbplatform.cli.common import (
    SubVerbs,
    bars,
    bold,
    confirmed,
    database_argument,
    dry_run_option,
    json_option,
    opened,
    say,
    show_json,
    show_table,
    yes_option,
)
from dbplatform.operations import archives
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
        confirmed(f"Put {entry.rows:,} rows back into {where}?", yes=yes)
    with bars():
        report = archives.bring_back(
            platform, declared, archive_id, into=Relation.parse(into) if into is not None else None
        )
    document = report.as_json()
    show_json(document) if as_json else say(", ".join(f"{key} {value}" for key, value in document.items()))


def _show_plan(found: list[ArchivePlan]) -> None:
    for one in found:
        proven = "no proven backup holds them" if one.covered_rows is None else f"{one.covered_rows:,} of them proven"
        say(f"{bold(one.policy.name)}: {one.rows:,} rows of {one.policy.table} {one.rule}, {proven}")
        for child in one.children:
            say(f"  along with them: {child.rows:,} rows of {child.node.table}")
