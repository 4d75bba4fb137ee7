"""``dbplatform token``: who may use the status service from elsewhere."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast

import click

from dbplatform.cli.common import (
    DURATION,
    SubVerbs,
    dry_run_option,
    json_option,
    note,
    platform_of,
    say,
    show_json,
    show_table,
)
from dbplatform.operations import tokens
from dbplatform.operations.tokens import Scope


@click.group("token", cls=SubVerbs)
def command() -> None:
    """Tokens of the status service: each for a person or a program, for a time, to read or to act."""


@command.command()
@click.argument("name")
@click.option(
    "--scope",
    type=click.Choice(["read", "act"]),
    default="read",
    show_default=True,
    help="What it may do; act: acknowledge, silence, review and explain, and read.",
)
@click.option(
    "--expires", type=DURATION, default="90 days", show_default=True, help="After how long; at most 400 days."
)
@dry_run_option
@json_option
@click.pass_context
def create(context: click.Context, name: str, scope: str, expires: timedelta, dry_run: bool, as_json: bool) -> None:
    """Make a token, and show it this once: the ledger keeps its hash alone."""
    ledger = platform_of(context).ledger
    made, token = tokens.create_token(
        ledger, name, cast("Scope", scope), length=expires, now=datetime.now(UTC), dry_run=dry_run
    )
    if as_json:
        show_json({"dry_run": dry_run, **made.as_json(), "token": token})
    elif token is None:
        say(f"would make the token {made.name}, to {made.scope}, until {made.expires_at:%Y-%m-%d %H:%M} UTC")
    else:
        note(f"the token {made.name}, to {made.scope}, until {made.expires_at:%Y-%m-%d %H:%M} UTC.")
        note("It is not shown again:")
        say(token)


@command.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that expired or were revoked.")
@json_option
@click.pass_context
def list_(context: click.Context, everything: bool, as_json: bool) -> None:
    """The tokens: for whom, to do what, until when, and when each was used last."""
    found = tokens.list_tokens(platform_of(context).ledger, now=datetime.now(UTC), everything=everything)
    if as_json:
        show_json({"tokens": [one.as_json() for one in found]})
    elif not found:
        say("no tokens")
    else:
        columns = ("id", "name", "scope", "state", "expires", "made by", "last used", "from")
        rows = [
            (
                one.id,
                one.name,
                one.scope,
                one.state,
                f"{one.expires_at:%Y-%m-%d %H:%M} UTC",
                one.created_by,
                f"{one.last_used_at:%Y-%m-%d %H:%M} UTC" if one.last_used_at else "never",
                one.last_used_from,
            )
            for one in found
        ]
        show_table(None, columns, rows)


@command.command()
@click.argument("which", metavar="NAME")
@dry_run_option
@json_option
@click.pass_context
def revoke(context: click.Context, which: str, dry_run: bool, as_json: bool) -> None:
    """Revoke a token, by its name or number: from then on it is refused."""
    found = tokens.revoke_token(platform_of(context).ledger, which, now=datetime.now(UTC), dry_run=dry_run)
    if as_json:
        show_json({"dry_run": dry_run, **found.as_json()})
    else:
        say(f"the token {found.name} {'would be' if dry_run else 'is'} revoked")
