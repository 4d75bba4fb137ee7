"""``dbplatform drill``: prove the newest backup by restoring it elsewhere."""

from __future__ import annotations

import click

from dbplatform.cli import physical
from dbplatform.cli.common import (
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
from dbplatform.cli.verdict import say_checks
from dbplatform.operations import backups


@click.command("drill")
@database_argument
@click.option("--kind", type=click.Choice(["logical", "physical"]), default="logical", show_default=True)
@dry_run_option
@json_option
@click.pass_context
def command(context: click.Context, database: str, kind: str, dry_run: bool, as_json: bool) -> int:
    """Restore the newest backup on the scratch server, compare it and run the checks on it; of kind physical, recover
    its server aside to a random moment and to the end of its WAL. Exit 1 when it is not proven."""
    platform, declared = opened(context, database)
    if kind == "physical":
        return physical.drill(platform, declared, dry_run=dry_run, as_json=as_json)
    if dry_run:
        backup = backups.newest(platform, declared)
        show_json({"backup_id": backup.id}) if as_json else say(f"would restore backup {backup.id} and compare it")
        return 0
    if not as_json:
        note(f"restoring the newest backup of {database} into a scratch database")
    with bars():
        report = backups.prove(platform, declared)
    document = report.as_json()
    if as_json:
        show_json(document)
    else:
        say(f"backup {document['backup_id']}: {'PROVEN' if document['proven'] else 'NOT PROVEN'}")
        rto, rpo = document["rto_seconds"], document["rpo_seconds"]
        if rto is not None and rpo is not None:
            say(f"  recovery took {rto:.1f} s (RTO); what came after {rpo:.0f} s ago would be lost (RPO)")
        say_checks(report.checks)
        for problem in document.get("errors", []):
            say(f"  {problem}")
        if document["tables"]:
            show_table(
                None,
                ("table", "rows", "expected", "match"),
                [(t["table"], t["rows"], t["expected_rows"], t["match"]) for t in document["tables"]],
            )
    return 0 if document["proven"] else 1
