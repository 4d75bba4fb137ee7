"""``dbplatform init``: a project of the user's own that runs at once."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from dbplatform.cli.common import bold, dry_run_option, json_option, say, show_json
from dbplatform.declaration.scaffold import ProjectPlan, plan_project, write_project


@click.command("init")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--name", help="The name of its first database; by default that of the folder.")
@click.option(
    "--url-env", metavar="VARIABLE", help="The variable that holds its URL; by default it is on the embedded server."
)
@dry_run_option
@json_option
def command(folder: Path, name: str | None, url_env: str | None, dry_run: bool, as_json: bool) -> None:
    """Make a project in DIR with one declared database that runs as it is. Overwrites nothing."""
    plan = plan_project(folder, name=name, url_env=url_env)
    if not dry_run:
        write_project(plan)
    if as_json:
        show_json({**plan.as_json(), "dry_run": dry_run})
        return
    say(bold(f"{plan.database}: {'would be ' if dry_run else ''}a project in {plan.folder}"))
    for path in plan.files:
        say(f"  {path}")
    if not dry_run:
        say("\nnext:")
        for step in _next_steps(plan, folder):
            say(f"  {step}")


def _next_steps(plan: ProjectPlan, folder: Path) -> list[str]:
    steps = [] if plan.folder == Path.cwd() else [f"cd {shlex.quote(str(folder))}"]
    if plan.url_env is not None:
        steps.append(f"export {plan.url_env}=postgresql://user:password@host:port/database")
    steps.append(f"dbplatform doctor {plan.database}")
    if plan.url_env is not None:
        steps.append(f"dbplatform migrate plan {plan.database}")
    return [*steps, f"dbplatform run {plan.database}", "dbplatform dev"]
