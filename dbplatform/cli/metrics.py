"""``dbplatform metrics``: what is measured of a database now."""

from __future__ import annotations

import click

from dbplatform.cli.common import database_argument, json_option, opened, say, show_json, show_table
from dbplatform.monitoring.metrics import kind_of
from dbplatform.monitoring.words import value_words
from dbplatform.operations import watching


@click.command("metrics")
@database_argument
@json_option
@click.pass_context
def command(context: click.Context, database: str, as_json: bool) -> None:
    """Measure the database by a dozen cheap statements, and keep what was measured in the ledger."""
    found = watching.measure(*opened(context, database))
    if as_json:
        show_json(found.as_json())
        return
    show_table(
        None,
        ("metric", "value", "of"),
        [
            (name, value_words(metric.value, kind_of(name).unit), metric.detail or "")
            for name, metric in found.values.items()
        ],
    )
    for name, reason in {**found.absent, **found.unmeasured}.items():
        say(f"{name}: {reason}")
    for missing in found.missing:
        say(f"missing: {missing}")
