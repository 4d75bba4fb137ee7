"""The capacity report of a quarter: what runs out and when, what grows, each with its history and the range ahead."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from dbplatform.declaration.loading import Declared
from dbplatform.monitoring.words import value_words
from dbplatform.operations.capacity import Capacity, Growth, Limit, capacity
from dbplatform.operations.platform import Platform
from dbplatform.reporting.page import environment
from dbplatform.reporting.periods import Period, PeriodEntry, quarter, write_period
from dbplatform.reporting.plots import Plot, amount, forecast_plot
from dbplatform.reporting.publish import destination_of

#: How far ahead the table of what grows looks, in days.
_SHOWN_AHEAD: Final = 90.0
_TITLES = {
    "disk": "Disk",
    "partitions": "Partitions of",
    "sequence": "Sequence",
    "transaction_ids": "Transaction ids",
    "connections": "Connections",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenCapacity:
    """What is known, and the report of it that was written."""

    capacity: Capacity
    entry: PeriodEntry


def publish_capacity(platform: Platform, declared: Declared) -> WrittenCapacity:
    """Measure, and write the report of the quarter that it is. Raises as ``capacity`` and ``write_period``."""
    found = capacity(platform, declared)
    period = quarter(found.at.astimezone(declared.database.time_zone))
    entry = write_period(
        platform.ledger,
        declared.name,
        "capacity",
        period,
        page=render_capacity(found, period),
        document=found.as_json(),
        decisions=len(found.near),
        folder=platform.home.reports,
        destination=destination_of(platform, declared),
    )
    return WrittenCapacity(capacity=found, entry=entry)


def render_capacity(found: Capacity, period: Period) -> str:
    """The whole page; it needs nothing else. The same facts give the same text, byte for byte."""
    return (
        environment()
        .get_template("capacity.html.j2")
        .render(
            found=found,
            period=period,
            headline=headline(found),
            plots={(one.name, one.subject): limit_plot(one) for one in found.limits},
            growing=[(one, forecast_plot(one.samples, "bytes", one.trend, None, None)) for one in found.growth[:2]],
            relations=found.growth[2:],
            title=limit_title,
            growth=growth_words,
            in_90_days=_in_90_days,
            signed=signed,
            size=lambda value: value_words(value, "bytes"),
            value=amount,
        )
    )


def limit_plot(limit: Limit) -> Plot | None:
    """The plot of a limit that has a history."""
    return forecast_plot(limit.samples, limit.unit, limit.growth, limit.days, limit.of)


def limit_title(limit: Limit) -> str:
    """``Sequence public.notes_id_seq``."""
    named = limit.name in ("partitions", "sequence")
    return f"{_TITLES[limit.name]} {limit.subject}" if named else _TITLES[limit.name]


def runs_out(limit: Limit) -> str:
    """``The disk may be used up between 40 and 90 days from now``."""
    assert limit.days is not None
    title, words = limit_title(limit), limit.days.words
    if words == "now":
        return f"{title}: used up now"
    return f"{title}: may be used up {words}{'' if words.startswith('in ') else ' from now'}"


def headline(found: Capacity) -> str:
    """What runs out first, in one sentence without its full stop."""
    near = found.near
    if near:
        more = f", and {len(near) - 1} more within {found.warn_within_days:,.0f} days" if len(near) > 1 else ""
        return f"{runs_out(near[0])}{more}"
    known = [limit for limit in found.limits if limit.days is not None]
    if not known:
        return "There is too little history yet to tell when anything runs out"
    unknown = len(found.limits) - len(known)
    rest = f"; of {unknown} it is not known" if unknown else ""
    far = [limit.days.horizon_days for limit in known if limit.days is not None and limit.days.low is None]
    return f"Nothing runs out within {min([found.warn_within_days, *far]):,.0f} days{rest}"


def growth_words(one: Growth) -> str:
    """``3 MB to 5 MB a day``; or why that is not known."""
    if one.trend is None:
        return one.reason or ""
    return f"{_range(signed(one.trend.per_day_low), signed(one.trend.per_day_high))} a day"


def _range(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _in_90_days(one: Growth) -> str:
    """The range of its size then."""
    if one.trend is None or one.trend.horizon_days < _SHOWN_AHEAD:
        return ""
    low, _, high = one.trend.ahead(np.array([_SHOWN_AHEAD]))
    return _range(value_words(max(0.0, float(low[0])), "bytes"), value_words(float(high[0]), "bytes"))


def signed(value: float) -> str:
    """A size with its sign, where it is less than nothing."""
    return value_words(value, "bytes") if value >= 0 else f"-{value_words(-value, 'bytes')}"
