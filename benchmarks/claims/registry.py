"""What the documents of the systems claim, what was measured of each claim, and the sentence that judges it.

A claim is a function with ``@claim``: it is named as the function is, and is measured in the order of registration. It
returns one case or several: situations in which the claim might hold, the one that the document means first. The
verdict is made from the cases, so that it says what the figures of this run say.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from benchmarks.claims.ground import Ground

#: The document of each system.
DOCUMENTS: Final = {
    "scriptsensei": "000",
    "scribemed": "001",
    "restoreassist": "002",
    "n8n_scraper": "003",
    "ap_intake": "004",
}
#: Where a row of a system's page names a claim, with what was said there of it so far.
NAMED: Final = re.compile(r"(?P<link>\[`(?P<id>\w+)`\]\(claims\.md#(?P=id)\))(?:: (?P<said>[A-Z][^()|]* \([^()|]*\)))?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """What was measured before and after, round by round."""

    before: Sequence[float]
    after: Sequence[float]

    @property
    def medians(self) -> tuple[float, float]:
        return statistics.median(self.before), statistics.median(self.after)

    @property
    def ratio(self) -> float | None:
        """Before to after: the median of the ratios within the rounds. None where one of them is nothing."""
        if not all(self.after) or not all(self.before):
            return None
        return statistics.median(before / after for before, after in zip(self.before, self.after, strict=True))


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One situation. ``ratio``: how many times better it is after, whichever way better is; None: it cannot be told."""

    name: str
    before: float
    after: float
    unit: str
    ratio: float | None
    holds: bool
    words: str
    """Its name with the change, for the verdict."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What became of a claim."""

    cases: Sequence[Case]
    because: str = ""
    """What a reader has to know besides, to end the verdict with."""

    @property
    def verdict(self) -> str:
        """One sentence: Holds, Holds only, or Does not hold."""
        good = "; ".join(case.words for case in self.cases if case.holds)
        bad = "; ".join(case.words for case in self.cases if not case.holds)
        said = f"Holds: {good}" if not bad else f"Does not hold: {bad}"
        if good and bad:
            said = f"Holds only for: {good}; not for: {bad}"
        return f"{said}{'; ' if self.because else ''}{self.because}."

    def as_json(self) -> dict[str, Any]:
        first = self.cases[0]
        return {
            "before": plain(first.before),
            "after": plain(first.after),
            "unit": first.unit,
            "ratio": None if first.ratio is None else plain(first.ratio),
            "verdict": self.verdict,
            "cases": [
                {key: plain(value) if isinstance(value, float) else value for key, value in asdict(case).items()}
                for case in self.cases
            ],
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One claim of a document, in our words."""

    id: str
    system: str
    claimed: str
    measure: Callable[[Ground], Measured]

    @property
    def document(self) -> str:
        return DOCUMENTS[self.system]


CLAIMS: Final[dict[str, Claim]] = {}


def in_order() -> list[Claim]:
    """All claims, in the order of the documents."""
    return sorted(CLAIMS.values(), key=lambda one: one.document)


def claim(system: str, claimed: str) -> Callable[[Callable[[Ground], Measured]], Callable[[Ground], Measured]]:
    """Register a function as the measurement of a claim."""

    def registered(measure: Callable[[Ground], Measured]) -> Callable[[Ground], Measured]:
        assert measure.__name__ not in CLAIMS, measure.__name__
        CLAIMS[measure.__name__] = Claim(id=measure.__name__, system=system, claimed=claimed, measure=measure)
        return measure

    return registered


def less(name: str, sides: Sides, *, share: float, unit: str = "ms") -> Case:
    """Less is better, and at least this share is to be gone."""
    (before, after), ratio = sides.medians, sides.ratio
    gone = 1.0 if ratio is None else 1 - 1 / ratio
    words = f"{_percent(gone)} less" if gone >= 0 else f"{-gone * 100:.0f} % more"
    return Case(
        name=name, before=before, after=after, unit=unit, ratio=ratio, holds=gone >= share, words=f"{name}, {words}"
    )


def more(name: str, sides: Sides, *, times: float, unit: str) -> Case:
    """More is better, and it is to be at least so many times as much."""
    before, after = sides.medians
    swapped = Sides(before=sides.after, after=sides.before).ratio
    words = "none before" if swapped is None else f"{swapped:.1f} times"
    holds = swapped >= times if swapped is not None else after > 0
    return Case(name=name, before=before, after=after, unit=unit, ratio=swapped, holds=holds, words=f"{name}, {words}")


def bounded(name: str, sides: Sides, *, at_most: float, unit: str) -> Case:
    """Less is better, and behind it is to be at most so much."""
    before, after = sides.medians
    words = f"{name}, {shown(after, unit)}"
    return Case(
        name=name, before=before, after=after, unit=unit, ratio=sides.ratio, holds=after <= at_most, words=words
    )


def reached(name: str, sides: Sides, *, at_least: float, unit: str) -> Case:
    """More is better, and behind it is to be at least so much."""
    before, after = sides.medians
    ratio = Sides(before=sides.after, after=sides.before).ratio
    words = f"{name}, {shown(after, unit)}"
    return Case(name=name, before=before, after=after, unit=unit, ratio=ratio, holds=after >= at_least, words=words)


def once(before: float, after: float) -> Sides:
    """What was measured a single time, or counted."""
    return Sides(before=(before,), after=(after,))


def plain(value: float) -> float:
    """With four significant digits, which is more than such a measurement knows."""
    return round(value, 3 - math.floor(math.log10(abs(value)))) if value else 0.0


def shown(value: float, unit: str) -> str:
    """A figure for people, with its unit."""
    if unit == "%":
        return f"{value:.0f} %" if value >= 10 or not value else f"{value:.1f} %"
    digits = 0 if abs(value) >= 100 or value == int(value) else 1 if abs(value) >= 10 else 2
    return f"{value:,.{digits}f} {unit}"


def table(results: Sequence[dict[str, Any]]) -> str:
    """The table of docs/systems/claims.md; each row is an anchor, for the pages of the systems."""
    rows = ["| claim | before | after | ratio | verdict |", "|---|---|---|---|---|"]
    for one in results:
        before, after = (shown(one[side], one["unit"]) for side in ("before", "after"))
        ratio = "" if one["ratio"] is None else f"{one['ratio']:,.1f}"
        name = f'<a id="{one["id"]}"></a>[{one["system"]}]({one["system"]}.md), `{one["id"]}`: {one["claimed"]}'
        rows.append(f"| {name} | {before} | {after} | {ratio} | {one['verdict']} |")
    return "\n".join(rows) + "\n"


def surroundings(about: Mapping[str, Any]) -> str:
    """What the figures were measured on, and whether others worked there, too."""
    load = about["load"]
    beside = ": others worked beside it, and times are longer and less even than they need be" if load[0] > 1 else ""
    return (
        f"Measured with PostgreSQL {about['postgresql']} (`shared_buffers` {about['shared_buffers']}) and Python "
        f"{about['python']} on {about['cpus']} processors ({about['machine']}). Load of the machine when it began: "
        f"{load[0]:.1f}, {load[1]:.1f} and {load[2]:.1f} in the last 1, 5 and 15 minutes{beside}.\n"
    )


def became(result: Mapping[str, Any]) -> str:
    """What a row that names a claim says of it: its verdict, and the words of the case that the document means."""
    first = result["cases"][0]
    if result["verdict"].startswith("Holds only for: "):
        return f"Holds only for a part ({'for' if first['holds'] else 'not for'} {first['words']})"
    return f"{result['verdict'].partition(':')[0]} ({first['words']})"


def with_verdicts(page: str, results: Sequence[Mapping[str, Any]]) -> str:
    """The page of a system with what became of each claim behind its name; one that was not measured stays as it is."""
    known = {one["id"]: became(one) for one in results}
    return NAMED.sub(lambda named: f"{named['link']}: {known[named['id']]}" if named["id"] in known else named[0], page)


def _percent(share: float) -> str:
    """Never 100 % of what is not gone altogether."""
    return f"{min(share, 0.999) * 100:.1f} %" if 0.99 < share < 1 else f"{share * 100:.0f} %"
