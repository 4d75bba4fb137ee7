"""``dbplatform partition``: plan and make the partitions of a database."""

from __future__ import annotations

from typing import Any

import click

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
    note,
    opened,
    say,
    show_json,
    show_table,
    yes_option,
)
from dbplatform.operations import conversion, partitions, retirement
from dbplatform.partitioning.fates import RetirementReport
from dbplatform.postgres.identifiers import Relation


@click.group("partition", cls=SubVerbs)
def command() -> None:
    """Range partitions: history, ahead, and what becomes of old ones."""


start_option = click.option(
    "--start", help="How far back, in place of the declared start; ranges that were retired are made again: 2025-01-01."
)


@command.command()
@database_argument
@start_option
@json_option
@click.pass_context
def plan(context: click.Context, database: str, start: str | None, as_json: bool) -> None:
    """Which partitions are missing, and which are due to be retired."""
    found = partitions.plan(*opened(context, database), start=start).as_json()
    show_json(found) if as_json else _show(found, "to create")


@command.command()
@database_argument
@start_option
@dry_run_option
@during_freeze_option
@json_option
@click.pass_context
def apply(context: click.Context, database: str, start: str | None, dry_run: bool, as_json: bool) -> None:
    """Make the missing partitions: SHARE UPDATE EXCLUSIVE on the parent, for milliseconds each.

    Rows of their ranges move out of the default partition: then ACCESS EXCLUSIVE, for as long as one range takes.
    """
    platform, declared = opened(context, database)
    planned = partitions.plan(platform, declared, start=start).as_json()
    if dry_run:
        show_json(planned) if as_json else _show(planned, "to create")
        return
    if not as_json:
        _show(planned, "to create")
    if any(table["create"] for table in planned["tables"]):
        ask_while_frozen(context, declared)
    with bars():
        report = partitions.apply(platform, declared, start=start).as_json()
    show_json(report) if as_json else _show(report, "created")


@command.command()
@database_argument
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def retire(context: click.Context, database: str, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Detach partitions that are older than retain keeps, and drop those that are empty or archived.

    Exit 1 when one is refused.

    Lock: SHARE UPDATE EXCLUSIVE on the parent; with a default partition ACCESS EXCLUSIVE, for a moment.
    """
    platform, declared = opened(context, database)
    planned = retirement.plan(platform, declared)
    if dry_run:
        show_json(planned.as_json()) if as_json else _show_retirement(planned)
        return 0
    if not as_json:
        _show_retirement(planned)
    if any(table.partitions for table in planned.tables):
        ask_while_frozen(context, declared)
    lost = sum(one.lost for table in planned.tables for one in table.partitions)
    if lost:
        confirmed(f"Drop {lost:,} rows that are in no archive?", yes=yes)
    with bars():
        report = retirement.apply(platform, declared)
    show_json(report.as_json()) if as_json else _show_retirement(report)
    return 1 if report.refused else 0


def _show_retirement(report: RetirementReport) -> None:
    for table in report.tables:
        document = table.as_json()
        say(f"{bold(document['table'])}: {len(document['retire'])} partitions before {document['cutoff']}")
        if document["retire"]:
            rows = [(p["name"], p["lower"], p["upper"], p["rows"], p["fate"], p["reason"]) for p in document["retire"]]
            show_table(None, ("partition", "from", "to", "rows", "fate", "because"), rows)


@command.command()
@database_argument
@click.option("--table", required=True, help="The plain table: schema.table, as in partitioned_tables.")
@click.option("--undo", "back", is_flag=True, help="Make the table plain again, with every row.")
@dry_run_option
@during_freeze_option
@json_option
@click.pass_context
def convert(context: click.Context, database: str, table: str, back: bool, dry_run: bool, as_json: bool) -> None:
    """Make a plain table partitioned, while it is read and written, or plain again.

    Lock: ACCESS EXCLUSIVE twice for milliseconds, asked for in waits of 80 ms.
    """
    platform, declared = opened(context, database)
    relation = _relation(table)
    planned = conversion.plan(platform, declared, relation, back=back)
    if dry_run:
        show_json(planned) if as_json else _show_phases(planned, statements=True)
        return
    if not as_json:
        _show_phases(planned, statements=False)
    ask_while_frozen(context, declared)
    with bars():
        report = conversion.apply(platform, declared, relation, back=back).as_json()
    show_json(report) if as_json else _show_conversion(report)


def _relation(text: str) -> Relation:
    try:
        return Relation.parse(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--table") from error


def _show_phases(document: dict[str, Any], *, statements: bool) -> None:
    for phase in document["phases"]:
        count = len(phase["statements"])
        said = (
            "done" if phase["done"] else f"{count} statement{'' if count == 1 else 's'}" if count else "nothing to do"
        )
        say(f"{bold(phase['phase'])}: {said}")
        if statements and phase["statements"]:
            for one in phase["statements"]:
                say(f"  {one['sql']};\n    -- lock: {one['lock']}")
    for sentence in document["notes"]:
        note(f"note: {sentence}")


def _show_conversion(report: dict[str, Any]) -> None:
    if report["state"] == "plain":
        say(f"{bold(report['table'])} is a plain table again.")
    else:
        what = "is partitioned" if report["phases"] else "was partitioned already"
        say(f"{bold(report['table'])} {what}: {report['legacy']} holds everything below {report['bound']}")


def _show(document: dict[str, Any], what: str) -> None:
    for table in document["tables"]:
        create = table["create"]
        say(f"{bold(table['table'])}: {table['existing']} partitions, {len(create)} {what}, {_runs_out(table)}")
        if create:
            rows = [(p["name"], p["lower"], p["upper"], p["rows"]) for p in create]
            show_table(None, ("partition", "from", "to", "rows moved in"), rows)
        if table["default_rows"]:
            say(f"{table['default']} holds {table['default_rows']:,} rows")
        for left in table["left_in_default"]:
            say(
                f"  {left['rows']:,} rows of {left['name']} stay there: more than move_at_most; raise it in a quiet "
                "hour, or delete what is not needed"
            )
        for lock in table.get("locks", ()):
            say(f"  lock: {lock['mode']} on {lock['relation']} ({lock['why']})")


def _runs_out(table: dict[str, Any]) -> str:
    if table["horizon_days"] is None:
        return f"runs out after {table['horizon_numbers']:,} more numbers"
    return f"runs out in {table['horizon_days']:,.0f} days" if table["horizon_days"] else "covers nothing now"
