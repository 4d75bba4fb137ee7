"""``dbplatform check``: run the data-quality checks of a database and write the report."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import click

from dbplatform.cli.common import (
    bars,
    database_argument,
    dry_run_option,
    json_option,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.cli.verdict import show_verdict
from dbplatform.declaration.loading import Declared
from dbplatform.operations import checks
from dbplatform.operations.platform import Platform
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import verdict_of
from dbplatform.quality.suggest.suggestions import as_yaml
from dbplatform.quality.ways import TableWays
from dbplatform.reporting.publish import publish

_EXIT = {"passed": 0, "failed": 1, "errored": 3}


@click.command()
@database_argument
@click.option("--table", help="Only this table.")
@click.option("--check", "check_name", help="Only this check.")
@click.option("--explain", is_flag=True, help="Show how each check would be answered, and run none.")
@click.option("--full", is_flag=True, help="Read every partition, also those that have not changed.")
@click.option("--suggest", is_flag=True, help="Write checks from constraints, comments and data, as YAML; run none.")
@dry_run_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    database: str,
    table: str | None,
    check_name: str | None,
    explain: bool,
    full: bool,
    dry_run: bool,
    suggest: bool,
    as_json: bool,
) -> int:
    """Run the checks and write the report. Exit 1 when one failed, 3 when one could not run.

    Rows of checks that declare a quarantine are moved aside. --dry-run keeps nothing and moves none.
    """
    platform, declared = opened(context, database)
    if suggest:
        found = checks.suggest(platform, declared, table=table)
        if as_json:
            show_json({"database": database, "tables": [one.as_json() for one in found]})
        else:
            click.echo(as_yaml(found), nl=False)
        return 0
    chosen = checks.policies(declared, table=table, check=check_name)
    if explain:
        ways = [checks.explain(platform, declared, policy, only=only, full=full) for policy, only in chosen]
        show_json({"database": database, "tables": [way.as_json() for way in ways]}) if as_json else _show(ways)
        return 0
    if dry_run:
        return _dry_run(platform, declared, chosen, as_json=as_json)
    run_id = str(uuid.uuid4())
    with bars():
        results = [
            checks.check_table(platform, declared, policy.table, run_id=run_id, only=only, full=full)
            for policy, only in chosen
        ]
    published = publish(platform, declared, run_id, in_dagster=False)
    verdict = verdict_of(results)
    if as_json:
        show_json(
            {
                "database": database,
                "run_id": run_id,
                "verdict": verdict,
                "report": published.location,
                "tables": [result.as_json() for result in results],
            }
        )
    else:
        show_verdict(published)
    return _EXIT[verdict]


def _dry_run(
    platform: Platform, declared: Declared, chosen: Sequence[tuple[TablePolicy, set[str] | None]], *, as_json: bool
) -> int:
    """Run the checks; no result is kept, no row is moved."""
    with bars():
        results = [
            checks.check_table(platform, declared, policy.table, run_id="", only=only, record=False)
            for policy, only in chosen
        ]
    verdict = verdict_of(results)
    if as_json:
        tables = [result.as_json() for result in results]
        show_json({"database": declared.name, "run_id": None, "verdict": verdict, "report": None, "tables": tables})
    else:
        for result in results:
            show_table(
                result.table,
                ("check", "status", "what was found"),
                [(check.name, check.status, " ".join(check.message.split())) for check in result.checks],
            )
        say("\nNothing was kept, and no row was moved.")
    return _EXIT[verdict]


def _show(tables: list[TableWays]) -> None:
    for found in tables:
        streamed = "its columns are streamed once" if found.stream is None else f"not streamed: {found.stream}"
        show_table(
            f"{found.table} ({streamed})",
            ("check", "answered", "why"),
            [(way.check, way.how, way.why) for way in found.checks],
        )
        if found.partitions is None:
            continue
        if found.partitions.refused:
            click.echo(f"{found.table} is read as a whole: {found.partitions.refused}")
            continue
        show_table(
            f"partitions of {found.table}",
            ("partition", "read", "why"),
            [(part.partition, "yes" if part.read else "no", part.why) for part in found.partitions.partitions],
        )
