"""``dbplatform metrics``: what is measured of a database now, what it was before, and what is counted exactly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from dbplatform.cli.common import (
    DURATION,
    NAME_OF_RELATION,
    bold,
    database_argument,
    json_option,
    opened,
    say,
    show_json,
    show_table,
)
from dbplatform.declaration.loading import Declared
from dbplatform.monitoring import record
from dbplatform.monitoring.metrics import Metrics, kind_of
from dbplatform.monitoring.words import value_words
from dbplatform.operations import watching
from dbplatform.operations.platform import Platform
from dbplatform.postgres.identifiers import Relation


@click.command("metrics")
@database_argument
@click.option("--history", "name", metavar="NAME", help="How this metric was before; nothing is measured.")
@click.option("--since", type=DURATION, default="1 day", show_default=True, help="How far --history goes back.")
@click.option(
    "--exact",
    "relation",
    type=NAME_OF_RELATION,
    metavar="RELATION",
    help="Count how much of a table or index is unused.",
)
@click.option("--worst", is_flag=True, help="The largest, most dead, least used: ten of each at most.")
@json_option
@click.pass_context
def command(
    context: click.Context,
    database: str,
    name: str | None,
    since: timedelta,
    relation: Relation | None,
    worst: bool,
    as_json: bool,
) -> None:
    """Measure the database by eight cheap statements, and keep what was measured in the ledger.

    --exact reads the table, or index, by the extension pgstattuple; everything else reads statistics only.
    """
    platform, declared = opened(context, database)
    if name is not None:
        _history(platform, declared, name, since, as_json=as_json)
    elif relation is not None:
        _exact(platform, declared, relation, as_json=as_json)
    else:
        _show(watching.measure(platform, declared), worst=worst, as_json=as_json)


def _show(found: Metrics, *, worst: bool, as_json: bool) -> None:
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
    for name, rows in found.worst.items() if worst else ():
        if rows:
            columns = list(rows[0])
            say("")
            show_table(name.replace("_", " "), columns, [[row[column] for column in columns] for row in rows])


def _history(platform: Platform, declared: Declared, name: str, since: timedelta, *, as_json: bool) -> None:
    unit = kind_of(name).unit
    points = record.history(platform.ledger, declared.name, name, since=datetime.now(UTC) - since)
    if as_json:
        document = {"database": declared.name, "metric": name, "unit": unit}
        show_json({**document, "history": [point.as_json() for point in points]})
        return
    if not points:
        say(f"{name}: nothing was measured in this time")
        return
    say(f"{bold(name)}: {kind_of(name).meaning}")
    show_table(
        None,
        ("at", "value", "least", "greatest"),
        [
            (
                f"{point.at:%Y-%m-%d %H:%M} UTC",
                *(
                    value_words(point.value if one is None else one, unit)
                    for one in (None, point.least, point.greatest)
                ),
            )
            for point in points
        ],
    )


def _exact(platform: Platform, declared: Declared, relation: Relation, *, as_json: bool) -> None:
    found = watching.exact_bloat(platform, declared, relation)
    if as_json:
        show_json({"database": declared.name, "exact": [found.as_json()]})
        return
    size, unused = value_words(found.bytes, "bytes"), value_words(found.unused_bytes, "bytes")
    dead = f", {found.dead_rows:,} dead rows" if found.dead_rows is not None else ""
    say(f"{found.kind} {found.relation}: {unused} of {size} are unused ({value_words(found.ratio, 'ratio')}{dead})")
