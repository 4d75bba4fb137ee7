"""Who is told, of what, and when: the channels that a person declares."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime, timedelta

from pydantic import Field, field_validator

from dbplatform.alerting.states import Severity, reaches
from dbplatform.postgres.daily_window import WindowWords
from dbplatform.postgres.words import DurationWords, Interval, Policy

_LEAST_REPEAT = timedelta(minutes=5)


class NotifyPolicy(Policy):
    """One channel: an Apprise URL or a plain webhook, by the name of the variable that holds it."""

    url_env: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="The environment variable that holds the URL of one receiver: any Apprise URL, or webhook+https:// "
        "for a plain webhook.",
    )
    min_severity: Severity = Field(default="warning", description="The mildest alerts it is told about.")
    owners: list[str] = Field(
        default=[],
        description="It is told of what one of these owns: the owner of a check, else the owners of the database. Left "
        "out: of everything. What no channel would be told of for want of an owner, all are.",
    )
    repeat_interval: DurationWords | None = Field(
        default=Interval.parse("1 day"),
        json_schema_extra={"default": "1 day"},
        description="What still fires, and nobody has acknowledged, is told again after so long; null: never.",
    )
    quiet_hours: WindowWords | None = Field(
        default=None,
        description="Within these hours warnings wait: 22:00-07:00 Europe/Vienna. What is over before they end is "
        "never told; critical alerts are told at once.",
    )

    @field_validator("repeat_interval")
    @classmethod
    def _not_a_storm(cls, interval: Interval | None) -> Interval | None:
        if interval is not None and interval.timedelta < _LEAST_REPEAT:
            raise ValueError(f"{interval} is too often; write 5 minutes or more, or null for never")
        return interval

    def is_quiet(self, severity: Severity, now: datetime) -> bool:
        """Whether an alert of this severity waits at the time ``now`` (aware)."""
        return severity == "warning" and self.quiet_hours is not None and self.quiet_hours.is_open(now)


def quiet_now(database: str, channels: Iterable[NotifyPolicy], now: datetime) -> set[tuple[str, str]]:
    """The channels of a database whose warnings wait at the time ``now`` (aware), each with the database."""
    return {(database, one.url_env) for one in channels if one.is_quiet("warning", now)}


def channels_for(
    channels: Iterable[NotifyPolicy], severity: Severity, owners: Collection[str] = ()
) -> tuple[NotifyPolicy, ...]:
    """The channels that take alerts of this severity and these owners, each variable once.

    What no channel takes because of its owners goes to all that take the severity: nothing is told to nobody.
    """
    loud = one_per_variable(one for one in channels if reaches(severity, one.min_severity))
    owned = tuple(one for one in loud if not one.owners or set(one.owners) & set(owners))
    return owned or loud


def one_per_variable(channels: Iterable[NotifyPolicy]) -> tuple[NotifyPolicy, ...]:
    """The channels, the first of those that name the same variable."""
    first: dict[str, NotifyPolicy] = {}
    for one in channels:
        first.setdefault(one.url_env, one)
    return tuple(first.values())
