"""``dbplatform roles``: least-privilege roles of a database, planned and made."""

from __future__ import annotations

from collections.abc import Callable
from itertools import groupby
from typing import Any

import click

from dbplatform.cli import roles_review
from dbplatform.cli.common import (
    SubVerbs,
    ask_while_frozen,
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
from dbplatform.operations import roles
from dbplatform.roles.model import RolePlan

url_option: Callable[[Any], Any] = click.option(
    "--url-env",
    metavar="VARIABLE",
    help="The variable that holds a superuser's URL of the database, where the declared one is not.",
)


@click.group("roles", cls=SubVerbs)
def command() -> None:
    """Roles with no more rights than they need: monitor, migrate, backup, archive, read; and who may do what."""


command.add_command(roles_review.command)


@command.command()
@database_argument
@url_option
@json_option
@click.pass_context
def plan(context: click.Context, database: str, url_env: str | None, as_json: bool) -> int:
    """Each statement that is missing or too much, with its undo. Exit 1 when there is any."""
    found = roles.plan(*opened(context, database), url_env=url_env)
    show_json(found.as_json()) if as_json else _show(found)
    return 1 if found.steps else 0


@command.command()
@database_argument
@url_option
@dry_run_option
@during_freeze_option
@yes_option
@json_option
@click.pass_context
def apply(context: click.Context, database: str, url_env: str | None, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Make the roles and their rights, all or nothing; ask before anybody loses a right.

    Passwords are yours to give: the roles cannot log in, you grant them to logins.

    Lock: ACCESS EXCLUSIVE for a moment on each table that gets another owner.
    """
    platform, declared = opened(context, database)
    planned = roles.plan(platform, declared, url_env=url_env)
    if dry_run:
        show_json(planned.as_json()) if as_json else _show(planned)
        return
    if not as_json:
        _show(planned)
    if planned.steps:
        ask_while_frozen(context, declared)
    if planned.taking:
        confirmed(f"Follow {len(planned.steps)} steps, {planned.taking} of which take rights away?", yes=yes)
    made = roles.apply(platform, declared, url_env=url_env)
    if as_json:
        show_json(made.as_json())
    elif made.steps:
        say(f"{made.database}: {len(made.steps)} steps made; each can be taken back by its undo")


def _show(found: RolePlan) -> None:
    show_table(
        None,
        ("role", "for", "members"),
        [(role, capability, ", ".join(found.members[capability])) for capability, role in found.roles.items()],
    )
    for why, steps in groupby(found.steps, key=lambda step: step.why):
        say(f"-- {why}")
        for step in steps:
            say(f"{bold(step.sql)}{f' -- lock: {step.lock}' if step.lock else ''}")
            say(f"    -- undo: {step.undo}")
    for sentence in found.notes:
        note(f"note: {sentence}")
    if not found.steps:
        say(f"{found.database}: the rights are as declared")
