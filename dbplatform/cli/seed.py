"""``dbplatform seed``: fill a database from its declared seeds, and verify it."""

from __future__ import annotations

from typing import Any

import click

from dbplatform.cli.common import (
    ask_while_frozen,
    bars,
    database_argument,
    dry_run_option,
    during_freeze_option,
    json_option,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.operations import seeds

profile_option = click.option("--profile", help="The declared profile; by default the first.")


@click.group()
def command() -> None:
    """Seeds: data that a fresh database begins with."""


@command.command()
@database_argument
@profile_option
@click.option("--rows-scale", type=float, default=1.0, help="How many times the rows of generated tables.")
@click.option("--allow-production", is_flag=True, help="Seed a database whose environment is production, too.")
@dry_run_option
@during_freeze_option
@json_option
@click.pass_context
def apply(
    context: click.Context,
    database: str,
    profile: str | None,
    rows_scale: float,
    allow_production: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Load what is not recorded as loaded; each table in one transaction with its record."""
    platform, declared = opened(context, database)
    planned = seeds.plan(platform, declared, profile=profile, rows_scale=rows_scale).as_json()
    if dry_run:
        show_json(planned) if as_json else _show(planned)
        return
    if not as_json:
        _show(planned)
    if any(table["status"] == "pending" for table in planned["tables"]):
        ask_while_frozen(context, declared)
    with bars():
        report = seeds.apply(
            platform, declared, profile=profile, rows_scale=rows_scale, allow_production=allow_production
        ).as_json()
    show_json(report) if as_json else _show(report)


@command.command()
@database_argument
@profile_option
@json_option
@click.pass_context
def verify(context: click.Context, database: str, profile: str | None, as_json: bool) -> int:
    """Compare rows with what was recorded, follow every foreign key, run the declared checks. Exit 1 on a finding."""
    with bars():
        found = seeds.verify(*opened(context, database), profile=profile)
    document = found.as_json()
    if as_json:
        show_json(document)
    else:
        _show(document)
        show_table(
            None,
            ("foreign key", "table", "orphans"),
            [(r["constraint"], r["table"], r["orphans"]) for r in document["references"]],
        )
        failed = [
            (table["table"], check["name"], check["severity"], check["status"], check["message"])
            for table in document["quality"]
            for check in table["checks"]
            if check["status"] not in ("passed", "accepted")
        ]
        if failed:
            show_table(None, ("table", "check", "severity", "status", "found"), failed)
        checks = sum(len(table["checks"]) for table in document["quality"])
        say(f"{checks - len(failed)} of {checks} checks passed; verdict: {'passed' if found.passed else 'failed'}")
    return 0 if found.passed else 1


def _show(document: dict[str, Any]) -> None:
    columns = [key for key in document["tables"][0] if key not in ("file_sha256",)] if document["tables"] else []
    show_table(
        f"{document['database']}, profile {document['profile']}",
        [column.replace("_", " ") for column in columns],
        [[table[column] for column in columns] for table in document["tables"]],
    )
