"""``dbplatform capacity``: what runs out, and when."""

from __future__ import annotations

import click

from dbplatform.cli.common import bold, database_argument, json_option, opened, say, show_json, show_table
from dbplatform.monitoring.words import value_words
from dbplatform.operations.capacity import Capacity, Limit, capacity
from dbplatform.reporting.capacity import growth_words, headline, limit_title
from dbplatform.reporting.plots import amount

_SHOWN = 12


@click.command("capacity")
@database_argument
@json_option
@click.pass_context
def command(context: click.Context, database: str, as_json: bool) -> int:
    """How long disk, partitions, sequences, transaction ids and connections last, and what grows.

    Times are ranges that hold in nine of ten cases, told from the history in the ledger once that has 14 days. Exit 1
    when a limit may be reached within capacity.warn_within (90 days). As a page: dbplatform report capacity DATABASE.
    """
    platform, declared = opened(context, database)
    found = capacity(platform, declared)
    if as_json:
        show_json(found.as_json())
    else:
        _show(found)
    return 1 if found.near else 0


def _show(found: Capacity) -> None:
    say(bold(f"{headline(found)}."))
    say("")
    show_table(
        None,
        ("what", "used", "of", "reached"),
        [(limit_title(one), _used(one, one.used), _used(one, one.of), _when(one)) for one in found.limits],
    )
    for limit in found.near:
        say(f"\n{limit_title(limit)}: {limit.advice}" + (f"\n  {limit.command}" if limit.command else ""))
    say("")
    show_table(
        "growth",
        ("what", "name", "size", "grows by"),
        [(one.kind, one.name, value_words(one.bytes, "bytes"), growth_words(one)) for one in found.growth[:_SHOWN]],
    )
    if len(found.growth) > _SHOWN:
        say(f"and {len(found.growth) - _SHOWN} more: --json")


def _used(limit: Limit, value: float | None) -> str:
    return "" if value is None else amount(value, limit.unit)


def _when(limit: Limit) -> str:
    return limit.days.words if limit.days is not None else f"not known: {limit.reason}"
