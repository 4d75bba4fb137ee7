"""``dbplatform alerts``: what is wrong now, who has seen it, and whether the channels work."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import click

from dbplatform.alerting import record, silences
from dbplatform.alerting.deliver import prove_channel
from dbplatform.alerting.record import AlertRecord, Episode
from dbplatform.cli.common import (
    SubVerbs,
    bold,
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
from dbplatform.ledger.acting import user
from dbplatform.monitoring.metrics import KINDS
from dbplatform.monitoring.words import value_words
from dbplatform.operations import closing, runbooks
from dbplatform.operations.platform import Platform
from dbplatform.postgres.words import Interval

database_argument = click.argument("database", required=False)


_COLUMNS = ("id", "database", "state", "severity", "since", "value", "limit", "cause", "seen by")


class NoLength(UsageError):
    """No length of time: {reason}."""


class NoChannel(UsageError):
    """{what} a channel."""


@click.group("alerts", cls=SubVerbs)
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
    by = user()
    found = record.acknowledge(platform_of(context).ledger, alert_id, by=by, now=datetime.now(UTC), dry_run=dry_run)
    if as_json:
        show_json({"alert": found.as_json()})
    else:
        words = "would be" if dry_run else "is"
        say(f"alert {found.id} ({found.metric} of {found.database}) {words} noted as seen by {found.acknowledged_by}")


@command.command()
@click.argument("database")
@dry_run_option
@json_option
@click.pass_context
def close(context: click.Context, database: str, dry_run: bool, as_json: bool) -> None:
    """End the alerts of a database that is no longer declared, and let go of its metrics."""
    platform = platform_of(context)
    plan = closing.plan_closing(platform, database)
    if not dry_run:
        closing.close(platform, plan, now=datetime.now(UTC))
    if as_json:
        show_json(plan.as_json())
        return
    words = "would be" if dry_run else "is"
    for alert in plan.alerts:
        say(f"alert {alert.id} ({alert.metric} of {database}) {words} over")
    for what, count in plan.rows.items():
        say(f"{count:,} {what} of {database} {'would be' if dry_run else 'are'} let go")


@command.command()
@database_argument
@click.option("--metric", help="Only this metric, check or job, as alerts list shows it; left out: all.")
@click.option("--for", "length", default="2h", show_default=True, help="How long: 30 min, 2h, 3 days; at most 31 days.")
@click.option("--reason", required=True, help="Why, for whoever reads it later.")
@dry_run_option
@json_option
@click.pass_context
def silence(
    context: click.Context,
    database: str | None,
    metric: str | None,
    length: str,
    reason: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Tell nobody of what fires in a database (left out: in all) for a time. What fires when it ends is told then."""
    platform, _ = _chosen(context, database)
    found = silences.silence(
        platform.ledger,
        database=database,
        metric=metric,
        length=_length(length),
        reason=reason,
        by=user(),
        now=datetime.now(UTC),
        dry_run=dry_run,
    )
    if as_json:
        show_json({"silence": found.as_json()})
    else:
        what = f"{found.metric or 'everything'} of {found.database or 'every database'}"
        number = "" if dry_run else f" (silence {found.id}; end it: dbplatform alerts unsilence {found.id})"
        say(f"{what} {'would be' if dry_run else 'is'} silent until {_time(found.ends_at)}{number}")


@command.command("silences")
@click.option("--past", is_flag=True, help="Those that are over, too.")
@json_option
@click.pass_context
def silences_(context: click.Context, past: bool, as_json: bool) -> None:
    """The silences that hold, or are to come."""
    found = silences.list_silences(platform_of(context).ledger, now=datetime.now(UTC), past=past)
    if as_json:
        show_json({"silences": [one.as_json() for one in found]})
    elif not found:
        say("no silences")
    else:
        rows = [
            (one.id, one.database or "all", one.metric or "all", _time(one.ends_at), one.reason, one.created_by)
            for one in found
        ]
        show_table(None, ("id", "database", "metric", "until", "reason", "by"), rows)


@command.command()
@click.argument("silence_id", type=int, metavar="ID")
@dry_run_option
@json_option
@click.pass_context
def unsilence(context: click.Context, silence_id: int, dry_run: bool, as_json: bool) -> None:
    """End a silence before its time."""
    found = silences.end_silence(platform_of(context).ledger, silence_id, now=datetime.now(UTC), dry_run=dry_run)
    if as_json:
        show_json({"silence": found.as_json()})
    else:
        say(f"silence {found.id} {'would be' if dry_run else 'is'} over; what still fires is told within a minute")


@command.command()
@database_argument
@click.option("--since", default="7 days", show_default=True, help="How far back: 12h, 7 days, 30 days.")
@json_option
@click.pass_context
def history(context: click.Context, database: str | None, since: str, as_json: bool) -> None:
    """What has fired, for how long, and who was told."""
    platform, _ = _chosen(context, database)
    now = datetime.now(UTC)
    found = record.history(platform.ledger, database, since=now - _length(since), now=now)
    if as_json:
        show_json({"alerts": [one.as_json() for one in found]})
    elif not found:
        say("nothing has fired")
    else:
        columns = ("id", "database", "what", "severity", "from", "to", "cause", "taken", "waiting", "began")
        show_table(None, columns, [_past(one, now) for one in found])


@command.command()
@click.argument("name", required=False)
@json_option
def runbook(name: str | None, as_json: bool) -> None:
    """What an alert means and what to do about it; without a name, all of them."""
    pages = [runbooks.runbook(name)] if name else list(runbooks.runbooks().values())
    if as_json:
        show_json({"runbooks": [page.as_json() for page in pages]})
        return
    for page in pages:
        say(bold(page.name))
        for line in (page.meaning, page.advice, f"Usual limits: {page.limits}." if page.limits else "", page.document):
            if line:
                say(f"  {line}")


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
    what = (alert.id, alert.database, alert.shown_state, alert.severity, _time(alert.since))
    return (*what, _value(alert), alert.limit, alert.cause, alert.acknowledged_by)


def _past(one: Episode, now: datetime) -> tuple[object, ...]:
    alert = one.alert
    over = _time(alert.resolved_at) if alert.resolved_at else f"now ({alert.shown_state})"
    taken = ", ".join(f"{channel} {count}" for channel, count in one.taken.items())
    waiting = ", ".join(f"{channel} {count}" for channel, count in one.waiting.items())
    what = (alert.id, alert.database, alert.metric, alert.severity, _time(alert.since), over, alert.cause)
    return (*what, taken or "nobody", waiting or "", ", ".join(str(begun) for begun in one.began))


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _length(words: str) -> timedelta:
    try:
        return Interval.parse(words).timedelta
    except ValueError as error:
        raise NoLength(reason=str(error).rstrip("."), hint="Write 30 min, 2h or 3 days.") from None


def _value(alert: AlertRecord) -> str | None:
    if alert.value is None:
        return None
    return value_words(alert.value, KINDS[alert.metric].unit if alert.metric in KINDS else "count")
