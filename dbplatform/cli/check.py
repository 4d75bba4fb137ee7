"""``dbplatform check``: run the data-quality checks of a database and write the report."""

from __future__ import annotations

import uuid

import click

from dbplatform.cli.common import bars, database_argument, json_option, opened, show_json, show_table
from dbplatform.cli.verdict import show_verdict
from dbplatform.errors import NotBuiltYet
from dbplatform.operations import checks
from dbplatform.quality.results import verdict_of
from dbplatform.quality.ways import TableWays
from dbplatform.reporting.publish import publish


@click.command()
@database_argument
@click.option("--table", help="Only this table.")
@click.option("--check", "check_name", help="Only this check.")
@click.option("--explain", is_flag=True, help="Show how each check would be answered, and run none.")
@click.option("--suggest", is_flag=True, hidden=True)
@json_option
@click.pass_context
def command(
    context: click.Context,
    database: str,
    table: str | None,
    check_name: str | None,
    explain: bool,
    suggest: bool,
    as_json: bool,
) -> int:
    """Run the checks and write the report. Exit 1 when one failed, 3 when one could not run."""
    if suggest:
        raise NotBuiltYet(what="check --suggest", hint="Leave the option out.")
    platform, declared = opened(context, database)
    chosen = checks.policies(declared, table=table, check=check_name)
    if explain:
        ways = [checks.explain(platform, declared, policy, only=only) for policy, only in chosen]
        show_json({"database": database, "tables": [way.as_json() for way in ways]}) if as_json else _show(ways)
        return 0
    run_id = str(uuid.uuid4())
    with bars():
        results = [
            checks.check_table(platform, declared, policy.table, run_id=run_id, only=only) for policy, only in chosen
        ]
    published = publish(platform, declared, run_id, in_dagster=False)
    verdict = verdict_of(results)
    if as_json:
        show_json(
            {
                "database": database,
                "run_id": run_id,
                "verdict": verdict,
                "report": str(published.path),
                "tables": [result.as_json() for result in results],
            }
        )
    else:
        show_verdict(published)
    return {"passed": 0, "failed": 1, "errored": 3}[verdict]


def _show(tables: list[TableWays]) -> None:
    for found in tables:
        streamed = "its columns are streamed once" if found.stream is None else f"not streamed: {found.stream}"
        show_table(
            f"{found.table} ({streamed})",
            ("check", "answered", "why"),
            [(way.check, way.how, way.why) for way in found.checks],
        )
