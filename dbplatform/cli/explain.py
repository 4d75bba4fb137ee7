"""``dbplatform explain``: the plan of a statement."""

from __future__ import annotations

import click

from dbplatform.cli.common import database_argument, json_option, note, opened, say, show_json
from dbplatform.errors import UsageError
from dbplatform.operations import slow_statements


# Every other number of a statement begins with a minus, which is no option.
@click.command("explain", context_settings={"ignore_unknown_options": True})
@database_argument
@click.argument("sql")
@click.option("--analyze", is_flag=True, help="Run it and measure; read only.")
@click.option("--rollback", is_flag=True, help="With --analyze: also one that writes; it is rolled back.")
@json_option
@click.pass_context
def command(context: click.Context, database: str, sql: str, analyze: bool, rollback: bool, as_json: bool) -> None:
    """The plan of a statement: of SQL, or of a number that slow-queries shows.

    Nothing runs without --analyze. One with $1 in it has the plan that holds for any value.
    """
    if rollback and not analyze:
        raise UsageError("--rollback belongs to --analyze: without it nothing runs.")
    if rollback:
        note("it runs in a transaction that is rolled back; it holds its locks meanwhile, and sequences go on")
    found = slow_statements.explained(*opened(context, database), sql, analyze=analyze, may_write=rollback)
    if as_json:
        show_json(found.as_json())
        return
    say(found.text)
    for one in found.notes:
        say(f"- {one}")
