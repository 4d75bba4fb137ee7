"""``dbplatform health``: the score from 0 to 100, with every deduction explained."""

from __future__ import annotations

import click

from dbplatform.cli.common import bold, database_argument, json_option, opened, say, show_json
from dbplatform.monitoring.metrics import kind_of
from dbplatform.monitoring.words import value_words
from dbplatform.operations import watching


@click.command("health")
@database_argument
@json_option
@click.pass_context
def command(context: click.Context, database: str, as_json: bool) -> int:
    """Measure the database and score it by the limits that experts use, or by its own. Exit 1 when one is breached."""
    platform, declared = opened(context, database)
    found = watching.score(declared, watching.measure(platform, declared))
    if as_json:
        show_json(found.as_json())
    else:
        say(f"{database}: {bold(f'{found.score} of 100')}, grade {found.grade}")
        for deduction in found.deductions:
            value = value_words(deduction.value, kind_of(deduction.metric).unit)
            say(f"  -{deduction.points} {deduction.metric}: {value}, limit {deduction.limit} ({deduction.severity})")
            say(f"     {deduction.cause}")
            say(f"     {deduction.advice}")
        for name, reason in found.not_judged.items():
            say(f"  not judged: {name}: {reason}")
        for missing in found.metrics.missing:
            say(f"  missing: {missing}")
    return 1 if found.deductions else 0
