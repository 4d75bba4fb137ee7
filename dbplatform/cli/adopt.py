"""``dbplatform adopt``: a declaration of a running database, written from what it is."""

from __future__ import annotations

import os
from pathlib import Path

import click

from dbplatform.cli.common import bars, bold, dry_run_option, json_option, platform_of, say, show_json, show_table
from dbplatform.declaration.project import NoProject
from dbplatform.declaration.scaffold import database_name, refuse_name
from dbplatform.errors import VariableNotSet
from dbplatform.operations.adoption import adopt
from dbplatform.operations.adoption.adopt import Adoption
from dbplatform.operations.adoption.candidates import CANDIDATE_ROWS
from dbplatform.postgres.connection import Target
from dbplatform.postgres.transport import demand_verified


@click.command("adopt")
@click.argument("name")
@click.option("--url-env", metavar="VARIABLE", required=True, help="The variable that holds the URL of the database.")
@click.option(
    "--environment",
    type=click.Choice(["development", "test", "staging", "production"]),
    default="production",
    show_default=True,
    help="What kind of place it is.",
)
@click.option(
    "--candidates-from",
    "from_rows",
    metavar="ROWS",
    type=click.IntRange(1),
    default=CANDIDATE_ROWS,
    show_default=True,
    help="How many rows make a table a candidate for partitions and archives.",
)
@dry_run_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    name: str,
    url_env: str,
    environment: str,
    from_rows: int,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Write a declaration for a running database: baseline, checks, limits, and proposals with their evidence.

    The database is only read, and needs no superuser. What would change or delete data is written as a comment.
    """
    platform = platform_of(context)
    if context.find_root().obj is None and not Path.cwd().is_relative_to(platform.project.root):
        # The platform's own, where it is installed, is no place for other people's databases.
        raise NoProject(place=Path.cwd(), hint="Name a project by -C, or make one: dbplatform init DIR")
    called = database_name(name)
    refuse_name(called, url_env)
    url = os.environ.get(url_env)
    if not url:
        hint = f"export {url_env}=postgresql://user:password@host:port/database"
        raise VariableNotSet(variable=url_env, purpose=f"holds the URL of the database {called}", hint=hint)
    if environment == "production":
        demand_verified(url, variable=url_env)
    with bars(enabled=not as_json):
        plan = adopt.plan_adoption(
            platform.project,
            Target(called, url),
            name=called,
            url_env=url_env,
            environment=environment,
            from_rows=from_rows,
        )
    if not dry_run:
        adopt.write_adoption(platform.project, plan)
    if as_json:
        show_json({**plan.as_json(content=dry_run), "dry_run": dry_run, "next": _next_steps(plan)})
        return
    if called != name:
        say(f"{name} is called {called} here.")
    _show(plan, dry_run=dry_run)


def _next_steps(plan: Adoption) -> list[str]:
    return [
        f"dbplatform doctor {plan.name}",
        f"dbplatform migrate baseline {plan.name}",
        f"dbplatform migrate drift {plan.name}",
        f"dbplatform run {plan.name}",
    ]


def _show(plan: Adoption, *, dry_run: bool) -> None:
    if dry_run:
        for path, text in plan.files.items():
            say(bold(f"{path}:"))
            say(text)
    document = plan.as_json(content=False)
    show_table(
        f"{plan.name}: {'would be ' if dry_run else ''}declared in {plan.folder}",
        ("table", "rows", "from", "checks"),
        [(one["table"], one["rows"], one["rows_from"], one["checks"]) for one in document["tables"]],
    )
    for one in plan.candidates:
        words = "partitions ahead of time" if one.active else "could be partitioned"
        say(f"{one.table.relation}: {words} by {one.column}, {one.interval}; {one.evidence[0]}")
        if one.archive is not None:
            say(f"{one.table.relation}: {one.archive}")
    for note in plan.notes:
        say(f"note: {note}")
    for path in plan.files:
        say(f"  {path}")
    if not dry_run:
        say("\nnext:")
        for step in _next_steps(plan):
            say(f"  {step}")
