"""Who is told: the channels that a person declares."""

from __future__ import annotations

from collections.abc import Iterable

from pydantic import Field

from dbplatform.alerting.states import Severity, reaches
from dbplatform.postgres.words import Policy


class NotifyPolicy(Policy):
    """One channel: any Apprise URL, by the name of the variable that holds it."""

    url_env: str = Field(
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$",
        description="The environment variable that holds the Apprise URL of one receiver.",
    )
    min_severity: Severity = Field(default="warning", description="The mildest alerts it is told about.")


def channels_for(channels: Iterable[NotifyPolicy], severity: Severity) -> tuple[str, ...]:
    """The variables of the channels that take alerts of this severity, each once."""
    return tuple(dict.fromkeys(one.url_env for one in channels if reaches(severity, one.min_severity)))
