"""What statements cost between two looks at ``pg_stat_statements``, and what stands out in them. No database here.

The extension counts from the last reset, and lets go of the least used when it is full; ``growth`` sees both, so that a
window holds what happened in it and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

#: So many statements of a database are read, the largest by their time.
MOST_COUNTED = 1_000

#: Enough to speak of a pattern.
_MANY_CALLS = 100
#: A parent that returns as many rows as its child is called, to one in ten.
_ALIKE = 0.1
#: The same in one step, and in how many of them.
_ALIKE_IN_STEP, _MOST_STEPS = 0.25, 0.8
#: A lookup that is called so many times as often as any other reading statement, and so often at all, is called in a
#: loop, when it is as quick as one by an index.
_CHATTY, _CHATTY_CALLS, _TINY_S = 20, 5_000, 0.001
#: Blocks read for each row that is returned, beyond which an OFFSET is deep.
_BLOCKS_PER_ROW = 50
_STAR = re.compile(r"\bselect\s+(?:distinct\s+)?(?:[\w\"]+\.)?\*", re.IGNORECASE)
_OFFSET = re.compile(r"\boffset\s+(?:\$\d+|\?)", re.IGNORECASE)
_READS = re.compile(r"\s*(?:select|with|values|table)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """What one statement has cost: calls, milliseconds, rows, and blocks found, read, written to temporary files.

    ``since`` is when the server began to count it (seconds since the epoch, from version 17 on).
    """

    calls: int
    ms: float
    rows: int
    hit: int
    read: int
    temp: int
    since: float | None = None

    def less(self, before: Count) -> Count:
        """The difference to an earlier count of the same statement."""
        return Count(
            calls=self.calls - before.calls,
            ms=self.ms - before.ms,
            rows=self.rows - before.rows,
            hit=self.hit - before.hit,
            read=self.read - before.read,
            temp=self.temp - before.temp,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """One look: counts and texts by the id of the statement.

    ``whole`` says that no statement was left out; ``dealloc`` how often the extension let go of some.
    """

    at: datetime
    reset: float | None
    dealloc: int
    whole: bool
    counts: Mapping[int, Count]
    texts: Mapping[int, str] = field(default_factory=dict)


def growth(before: Counts | None, after: Counts) -> dict[int, Count]:
    """What each statement cost between two looks; nothing where that cannot be known.

    After a reset everything counted is new. A statement whose counts went down, or that is counted since a later time,
    was let go and began again: all that is counted of it is new. One that was not there before is new, unless the
    earlier look left some out.
    """
    if before is None or after.at <= before.at:
        return {}
    known = {} if after.reset != before.reset else before.counts
    everything_known = before.whole or after.reset != before.reset
    grown: dict[int, Count] = {}
    for queryid, count in after.counts.items():
        earlier = known.get(queryid)
        begun_again = count.since is not None and count.since > before.at.timestamp()
        if earlier is None:
            if begun_again or (everything_known and count.since is None) or after.reset != before.reset:
                grown[queryid] = count
        elif begun_again or count.calls < earlier.calls or count.ms < earlier.ms:
            grown[queryid] = count
        elif count.calls > earlier.calls:
            grown[queryid] = count.less(earlier)
    return grown


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """One statement over a window, and what stands out in it."""

    queryid: int
    text: str
    count: Count
    findings: tuple[str, ...] = ()

    @property
    def mean_s(self) -> float:
        """Seconds per call."""
        return self.count.ms / self.count.calls / 1000 if self.count.calls else 0.0

    def as_json(self) -> dict[str, Any]:
        """One entry of ``slow-queries --json``."""
        count = self.count
        return {
            "queryid": str(self.queryid),
            "query": self.text,
            "calls": count.calls,
            "total_seconds": count.ms / 1000,
            "mean_seconds": self.mean_s,
            "rows": count.rows,
            "shared_blocks_hit": count.hit,
            "shared_blocks_read": count.read,
            "temp_blocks_written": count.temp,
            "findings": list(self.findings),
        }


Steps = Mapping[int, Mapping[datetime, Count]]
"""What statements cost in each step of a window, by the id of the statement and the beginning of the step."""


def findings(statement: Statement, others: Sequence[Statement], steps: Steps | None = None) -> tuple[str, ...]:
    """What stands out: all columns asked for, a deep OFFSET, a call for each row of another statement (N+1).

    With ``steps`` the calls must follow the rows of the other statement step by step: two sums may be alike by chance.
    """
    text, count = statement.text, statement.count
    found: list[str] = []
    if not _READS.match(text) or not count.calls:
        return ()
    if _STAR.search(text):
        found.append("It selects all columns: name those that are needed, so that an index alone may do.")
    blocks = (count.hit + count.read) / count.calls
    returned = count.rows / count.calls
    if _OFFSET.search(text) and blocks >= _BLOCKS_PER_ROW * max(1.0, returned):
        found.append(
            f"Its OFFSET is deep: {blocks:,.0f} blocks are read for {returned:,.0f} rows. Go on from the last key of "
            "the page before: where key > $1 order by key limit $2."
        )
    n_plus_one = _n_plus_one(statement, others, steps or {}) if is_lookup(statement) else None
    if n_plus_one is not None:
        found.append(n_plus_one)
    return tuple(found)


def is_lookup(statement: Statement) -> bool:
    """Whether it asks for about one row by a key, many times: what a loop over the rows of another statement does."""
    count = statement.count
    return (
        count.calls >= _MANY_CALLS
        and count.rows <= 2 * count.calls
        and _READS.match(statement.text) is not None
        and "where" in statement.text.lower()
    )


def likely_parents(statement: Statement, others: Iterable[Statement]) -> list[Statement]:
    """The statements for whose rows a lookup may have been called: as many, in far fewer calls; the likeliest first."""
    calls = statement.count.calls
    likely = [
        other
        for other in others
        if other.queryid != statement.queryid
        and _READS.match(other.text)
        and other.count.calls * 10 <= calls
        and abs(other.count.rows - calls) <= _ALIKE * calls
    ]
    return sorted(likely, key=lambda other: abs(other.count.rows - calls))


def _n_plus_one(statement: Statement, others: Sequence[Statement], steps: Steps) -> str | None:
    """The loop that a lookup is called in: behind another statement, or by what it is called more than all others."""
    mend = "join it there, or ask for many keys at once (= any($1))."
    for parent in likely_parents(statement, others):
        together = _together(steps.get(statement.queryid, {}), steps.get(parent.queryid, {}))
        if together is not None:
            seen = f", in each of {together} steps of the window" if together > 1 else ""
            return (
                f"N+1: it was called {statement.count.calls:,} times, about once for each of the "
                f"{parent.count.rows:,} rows of statement {parent.queryid}{seen}: {mend}"
            )
    most = max((one.count.calls for one in others if not is_lookup(one) and _READS.match(one.text)), default=0)
    if most and statement.count.calls >= max(_CHATTY * most, _CHATTY_CALLS) and statement.mean_s <= _TINY_S:
        return (
            f"N+1, by the look of it: it was called {statement.count.calls:,} times for a row each, "
            f"{statement.count.calls / most:,.0f} times as often as any other reading statement. Where it is called in "
            f"a loop, {mend}"
        )
    return None


def _together(child: Mapping[datetime, Count], parent: Mapping[datetime, Count]) -> int | None:
    """In how many steps a lookup followed the rows of a statement; None where it did not in one of five.

    Of a single step nothing more is known than the sums.
    """
    either = [at for at in {*child, *parent} if child.get(at, _NOTHING).calls or parent.get(at, _NOTHING).rows]
    if len(either) <= 1:
        return 1
    # Calls at the edge of a step are counted in the next one.
    alike = sum(
        abs(child.get(at, _NOTHING).calls - parent.get(at, _NOTHING).rows)
        <= max(_ALIKE_IN_STEP * child.get(at, _NOTHING).calls, 5)
        for at in either
    )
    return alike if alike >= _MOST_STEPS * len(either) else None


_NOTHING = Count(calls=0, ms=0.0, rows=0, hit=0, read=0, temp=0)


def explained(statements: Sequence[Statement], steps: Steps | None = None) -> tuple[Statement, ...]:
    """The same statements with what stands out in each beside the others."""
    return tuple(
        Statement(queryid=one.queryid, text=one.text, count=one.count, findings=findings(one, statements, steps))
        for one in statements
    )
