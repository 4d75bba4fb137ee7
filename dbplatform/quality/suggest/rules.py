"""What a column's profile and comment speak for, one rule a function; each says what it has seen.

A rule is silent where the evidence is thin: fewer than ``ENOUGH`` values say nothing about the next one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from math import ceil, floor, log10, sqrt
from typing import Any, Literal

from dbplatform.postgres.identifiers import quoted
from dbplatform.quality.checks.measures import age_words
from dbplatform.quality.suggest.patterns import common
from dbplatform.quality.suggest.profile import MOMENTS, NUMBERS, TEXTS, WHOLE, Column, Profile

ENOUGH = 100
_FEW_VALUES, _TIMES_EACH = 20, 20
_DIFFERENT_TEXTS = 20
_MOST_NULLS = 0.5
_LONGEST_KEY = 64

#: Words in a name, and the bounds that the thing itself has.
_BOUNDS_BY_NAME = (
    (r"(^|_)lat(itude)?$", -90, 90),
    (r"(^|_)(lon|lng|longitude)$", -180, 180),
    (r"(^|_)(percent|percentage|pct)($|_)", 0, 100),
    (r"(^|_)(ratio|share|probability)$", 0, 1),
    (r"(^|_)month$", 1, 12),
    (r"(^|_)hour$", 0, 24),
    (r"(^|_)weekday$", 0, 7),
)
_ARRIVES = re.compile(
    r"(^|_)(created|updated|inserted|loaded|recorded|received|modified|ingested|happened|time|ts|at)(_|$)"
)

_SAID_BOUNDS = re.compile(
    r"\b(?:between|from)\s+(-?\d+(?:\.\d+)?)\s+(?:and|to)\s+(-?\d+(?:\.\d+)?)"
    r"|(?<![\d-])(\d+)\s*(?:-|\.\.)\s*(\d+)(?![\d-])",
    re.IGNORECASE,
)

Source = Literal["constraint", "comment", "data"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """A check as it is declared, and why."""

    type: str
    options: dict[str, Any]
    evidence: str
    source: Source
    proof: str | None = None
    """The constraint that proves it already."""

    @property
    def declaration(self) -> dict[str, Any]:
        """As a person writes it; options that a plain column is enough for are written so."""
        if set(self.options) == {"column"} and self.type == "not_null":
            return {self.type: self.options["column"]}
        if set(self.options) == {"columns"}:
            columns = self.options["columns"]
            return {self.type: columns[0] if len(columns) == 1 else columns}
        return {self.type: self.options}


def of_column(column: Column, profile: Profile, *, key: bool, refers: bool, masked: bool) -> Iterator[Suggestion]:
    """What the data of one column speaks for.

    ``key``: a constraint makes it unique; ``refers``: it refers to another table. Neither has a range of its own.
    ``masked``: nothing may be said that tells a value.
    """
    yield from _nulls(column, profile)
    if column.known < ENOUGH:
        return
    if not key and not refers:
        yield from _unique(column, profile)
    if masked:
        return
    if column.type in TEXTS:
        yield from _texts(column, profile)
    elif column.type in NUMBERS and not key and not refers and not column.generated:
        yield from _numbers(column, profile)
    elif column.type in MOMENTS:
        yield from _moments(column, profile)


def of_comment(column: Column) -> Iterator[Suggestion]:
    """What the comment on a column says of its values; whether that is so the data must show."""
    text = column.comment or ""
    name = quoted(column.name)
    said = f"the comment says {_short(text)!r}"
    if re.search(r"\b(required|mandatory|must not be null|never null|not null)\b", text, re.IGNORECASE):
        yield Suggestion(type="not_null", options={"column": name}, evidence=said, source="comment")
    if re.search(r"\b(unique|never repeats)\b", text, re.IGNORECASE) and not re.search(
        r"\b(not|per|within|unless)\b", text, re.IGNORECASE
    ):
        yield Suggestion(type="unique", options={"columns": [name]}, evidence=said, source="comment")
    listed = re.search(r"\b(?:one of|either|allowed(?: values)?|values?)\b:?\s+(.+?)(?:[.;)]|$)", text, re.IGNORECASE)
    if listed and column.type in TEXTS:
        values = [value.strip(" '\"`") for value in re.split(r",|\||\bor\b|\band\b", listed[1])]
        values = [value for value in values if value]
        if 2 <= len(values) <= _FEW_VALUES and all(" " not in value for value in values):
            options = {"column": name, "values": values}
            yield Suggestion(type="accepted_values", options=options, evidence=said, source="comment")
    bounds = _SAID_BOUNDS.search(text)
    if bounds and column.type in NUMBERS:
        low, high = (Decimal(number) for number in bounds.groups() if number is not None)
        if low < high:
            numbers = {"column": name, "min": _number(low), "max": _number(high)}
            yield Suggestion(type="range", options=numbers, evidence=said, source="comment")


def of_rows(rows: int) -> Iterator[Suggestion]:
    """How many rows there must be: half of those that there are."""
    if rows >= ENOUGH:
        least = _rounded(Decimal(rows) / 2, 1, up=False)
        yield Suggestion(
            type="row_count",
            options={"min": int(least)},
            evidence=f"there are {rows:,} rows; half of them gone would be worth a word",
            source="data",
        )


def freshest(profile: Profile, now: datetime) -> Iterator[Suggestion]:
    """The column that tells how fresh the table is: the newest of those that move with the clock."""
    found = []
    for column in profile.columns:
        if column.type not in MOMENTS or column.known < ENOUGH or not _ARRIVES.search(column.name) or not column.past:
            continue
        newest = _moment(column.greatest)
        if newest is not None:
            found.append(((now - newest).total_seconds() / 3600, column))
    if not found:
        return
    hours, column = min(found, key=lambda pair: pair[0])
    for most, words in ((1, "3 hours"), (12, "1 day"), (24, "2 days"), (24 * 4, "8 days"), (24 * 20, "40 days")):
        if hours <= most:
            evidence = f"the newest of {profile.words} is {age_words(hours * 3600)}"
            options = {"column": quoted(column.name), "max_age": words, "severity": "warn"}
            yield Suggestion(type="freshness", options=options, evidence=evidence, source="data")
            return


def _nulls(column: Column, profile: Profile) -> Iterator[Suggestion]:
    nulls = profile.rows - column.known
    if column.not_null or profile.rows < ENOUGH:
        return
    if nulls == 0:
        evidence = f"none of {profile.words} is null"
        yield Suggestion(type="not_null", options={"column": quoted(column.name)}, evidence=evidence, source="data")
    elif nulls / profile.rows <= _MOST_NULLS:
        ratio = nulls / profile.rows
        # Three standard errors above what was seen, and a hundredth.
        most = ratio + 3 * sqrt(ratio * (1 - ratio) / profile.rows) + 0.01
        evidence = f"{nulls:,} of {profile.words} are null ({100 * ratio:.3g} %)"
        options = {"column": quoted(column.name), "max": min(1, ceil(most * 100) / 100)}
        yield Suggestion(type="null_ratio", options=options, evidence=evidence, source="data")


def _unique(column: Column, profile: Profile) -> Iterator[Suggestion]:
    if column.type not in (*WHOLE, *TEXTS, "uuid") or column.different < column.known or column.known < profile.rows:
        return
    if column.longest is not None and column.longest > _LONGEST_KEY:
        return
    evidence = f"{column.different:,} different values in {profile.words}"
    yield Suggestion(type="unique", options={"columns": [quoted(column.name)]}, evidence=evidence, source="data")


def _texts(column: Column, profile: Profile) -> Iterator[Suggestion]:
    name, known = quoted(column.name), column.known
    if 2 <= column.different == len(column.values) <= _FEW_VALUES and known >= _TIMES_EACH * column.different:
        values = sorted(value for value, _ in column.values)
        evidence = f"{column.different} different values in {known:,}; the rarest occurs {column.values[-1][1]:,} times"
        if column.values[-1][1] > 1:
            yield Suggestion(
                type="accepted_values", options={"column": name, "values": values}, evidence=evidence, source="data"
            )
            return
    if column.different < _DIFFERENT_TEXTS:
        return
    pattern = common(column.examples) if len(column.examples) >= _DIFFERENT_TEXTS else None
    if pattern is not None:
        words, regex = pattern
        evidence = f"all of {len(column.examples):,} different values read are {words}"
        yield Suggestion(type="matches", options={"column": name, "regex": regex}, evidence=evidence, source="data")
        if regex.endswith("$") and "[^" not in regex:
            return
    assert column.shortest is not None
    assert column.longest is not None
    evidence = f"{column.shortest} to {column.longest} characters in {known:,} values"
    longest = int(_rounded(Decimal(column.longest) * Decimal("1.5") + 1, 2, up=True))
    options: dict[str, Any] = {"column": name, "min": min(column.shortest, 1), "max": longest}
    if column.shortest == column.longest:
        options |= {"min": column.shortest, "max": column.longest}
        evidence = f"{column.shortest} characters in each of {known:,} values"
    if options["min"] == 0:
        del options["min"]
    yield Suggestion(type="length", options=options, evidence=evidence, source="data")


def _numbers(column: Column, profile: Profile) -> Iterator[Suggestion]:
    least, greatest = (Decimal(value) for value in (column.least or "NaN", column.greatest or "NaN"))
    if not (least.is_finite() and greatest.is_finite()) or abs(least) > Decimal(10) ** 15 < abs(greatest):
        return
    if column.type in WHOLE and column.different == column.known:
        return  # a key
    options: dict[str, Any] | None = None
    for words, lowest, highest in _BOUNDS_BY_NAME:
        if re.search(words, column.name.lower()) and lowest <= least and greatest <= highest:
            options = {"min": lowest, "max": highest}
    evidence = f"{least:f} to {greatest:f} in {column.known:,} values"
    if options is not None:
        evidence += "; the bounds are those of its name"
    else:
        low, high = _widened(least, greatest)
        if column.type in WHOLE and least == 1:
            low = least  # counting begins there
        options = {"min": _number(low), "max": _number(high)}
        evidence += ", and a tenth of that on either side"
    yield Suggestion(type="range", options={"column": quoted(column.name), **options}, evidence=evidence, source="data")


def _moments(column: Column, profile: Profile) -> Iterator[Suggestion]:
    least = _moment(column.least)
    if least is None or _moment(column.greatest) is None:
        return
    options: dict[str, Any] = {"column": quoted(column.name), "min": f"{max(1, least.year - 1):04d}-01-01"}
    evidence = f"{column.least} to {column.greatest} in {column.known:,} values"
    if column.past:
        options["max"] = "now"
        evidence += ", none in the future"
    yield Suggestion(type="range", options=options, evidence=evidence, source="data")


def _moment(text: str | None) -> datetime | None:
    """An aware moment; none for infinities and years that Python does not know."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _widened(least: Decimal, greatest: Decimal) -> tuple[Decimal, Decimal]:
    """A tenth of the span more on either side, rounded outward; what was never negative stays so."""
    span = greatest - least or abs(greatest) or Decimal(1)
    unit = Decimal(10) ** (floor(log10(span)) - 1)
    low = ((least - span / 10) / unit).to_integral_value(rounding="ROUND_FLOOR") * unit
    high = ((greatest + span / 10) / unit).to_integral_value(rounding="ROUND_CEILING") * unit
    return (max(low, Decimal(0)) if least >= 0 else low), (min(high, Decimal(0)) if greatest <= 0 else high)


def _rounded(number: Decimal, digits: int, *, up: bool) -> Decimal:
    unit = Decimal(10) ** max(0, floor(log10(number)) - digits + 1) if number >= 1 else Decimal(1)
    return (number / unit).to_integral_value(rounding="ROUND_CEILING" if up else "ROUND_FLOOR") * unit


def _number(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= 80 else f"{line[:77]}..."
