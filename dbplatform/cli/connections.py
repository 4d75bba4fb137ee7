"""``dbplatform connections``: who is connected, what each does, and who waits for whom."""

from __future__ import annotations

import click

from dbplatform.cli.common import database_argument, json_option, opened, say, show_json, show_table
from dbplatform.monitoring.words import value_words
from dbplatform.operations import watching


@click.command("connections")
@database_argument
@json_option
@click.pass_context
def command(context: click.Context, database: str, as_json: bool) -> None:
    """The sessions of the database, the longest transactions first. Statements are shown without the values in them."""
    found = watching.sessions_of(*opened(context, database))
    if as_json:
        show_json({"database": database, "connections": [session.as_json() for session in found]})
        return
    if not found:
        say("nobody is connected")
        return
    show_table(
        None,
        ("pid", "role", "application", "client", "state", "for", "transaction", "waits for", "statement"),
        [
            (
                str(one.pid),
                one.role,
                one.application,
                one.client,
                one.state,
                value_words(one.in_state_s, "seconds") if one.in_state_s is not None else "",
                value_words(one.transaction_s, "seconds") if one.transaction_s is not None else "",
                f"backend {', '.join(map(str, one.blocked_by))}" if one.blocked_by else one.waits_for or "",
                one.query[:100],
            )
            for one in found
        ],
    )
    for one in found:
        if one.blocks and not one.blocked_by:
            end = f"select pg_cancel_backend({one.pid})"
            say(f"backend {one.pid} holds {len(one.blocks)} back; to end its statement: {end}")
