"""``dbplatform alerts``: what is wrong now, who has seen it, and whether the channels work."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime

import click

from dbplatform.alerting import record
from dbplatform.alerting.deliver import prove_channel
from dbplatform.alerting.record import AlertRecord
from dbplatform.cli.common import (
    SubVerbs,
    dry_run_option,
    json_option,
    opened,
    platform_of,
    say,
    show_json,
    show_table,
)
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.monitoring.metrics import KINDS
from dbplatform.monitoring.words import value_words
from dbplatform.operations.platform import Platform

database_argument = click.argument("database", required=False)


_COLUMNS = ("id", "database", "state", "severity", "since", "value", "limit", "cause", "seen by")


class NoChannel(UsageError):
    """{what} a channel."""


@click.group("alerts", cls=SubVerbs, not_built_yet=("silence", "history"))
def command() -> None:
    """Alerts: what is wrong, since when, and who is told. The sensor of ``dbplatform dev`` keeps them."""


@command.command("list")
@database_argument
@click.option("--resolved", is_flag=True, help="The past ones, too.")
@json_option
@click.pass_context
def list_(context: click.Context, database: str | None, resolved: bool, as_json: bool) -> int:
    """The open alerts of one database, or of all. Exit 1 when one fires."""
    platform, declared = _chosen(context, database)
    found = record.list_alerts(platform.ledger, declared[0].name if database else None, resolved=resolved)
    if as_json:
        show_json(record.alerts_json(found))
    elif not found:
        say("no alerts")
    else:
        show_table(None, _COLUMNS, [_row(alert) for alert in found])
    return 1 if any(alert.state == "firing" for alert in found) else 0


@command.command()
@click.argument("alert_id", type=int, metavar="ID")
@dry_run_option
@json_option
@click.pass_context
def ack(context: click.Context, alert_id: int, dry_run: bool, as_json: bool) -> None:
    """Note that you have seen an open alert; it goes on until it is resolved."""
    by = getpass.getuser()
    found = record.acknowledge(platform_of(context).ledger, alert_id, by=by, now=datetime.now(UTC), dry_run=dry_run)
    if as_json:
        show_json({"alert": found.as_json()})
    else:
        words = "would be" if dry_run else "is"
        say(f"alert {found.id} ({found.metric} of {found.database}) {words} noted as seen by {found.acknowledged_by}")


@command.command()
@database_argument
@dry_run_option
@json_option
@click.pass_context
def test(context: click.Context, database: str | None, dry_run: bool, as_json: bool) -> int:
    """Send a test message to each declared channel; exit 1 when one does not take it."""
    platform, declared = _chosen(context, database)
    channels = list(dict.fromkeys(channel.url_env for one in declared for channel in one.database.notify))
    if not channels:
        what = f"The database {database} does not declare" if database else "No database declares"
        raise NoChannel(what=what, hint="Write notify: [{url_env: VARIABLE}] below attributes.")
    if dry_run:
        show_json({"channels": channels}) if as_json else say(f"would send to {', '.join(channels)}")
        return 0
    attempts = [prove_channel(platform.ledger, channel, now=datetime.now(UTC)) for channel in channels]
    if as_json:
        tried = [{"channel": one.channel, "delivered": one.delivered, "error": one.error} for one in attempts]
        show_json({"channels": tried})
    else:
        for one in attempts:
            say(f"{one.channel}: {'the message was taken' if one.delivered else one.error}")
    return 0 if all(one.delivered for one in attempts) else 1


def _chosen(context: click.Context, database: str | None) -> tuple[Platform, list[Declared]]:
    """The named database, or all of them."""
    if database is None:
        platform = platform_of(context)
        return platform, list(platform.declarations.databases)
    platform, declared = opened(context, database)
    return platform, [declared]


def _row(alert: AlertRecord) -> tuple[object, ...]:
    since = f"{alert.since:%Y-%m-%d %H:%M} UTC"
    what = (alert.id, alert.database, alert.state, alert.severity, since)
    return (*what, _value(alert), alert.limit, alert.cause, alert.acknowledged_by)


def _value(alert: AlertRecord) -> str | None:
    if alert.value is None:
        return None
    return value_words(alert.value, KINDS[alert.metric].unit if alert.metric in KINDS else "count")
