"""Partitions are asked by their own names: all that the same checks must read in one stream, where that pays.

One plan and one pair of sessions serve them all; each is counted by itself. What the stream does not answer, one scan
of the partition does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.attempt import Refused
from dbplatform.quality.checks.base import Check
from dbplatform.quality.checks.keys import Relationship, Unique
from dbplatform.quality.run import Run
from dbplatform.quality.streaming.cost import Size, sizes_of
from dbplatform.quality.unchanged.answers import parts_of

#: Rows, values of the parts, and what checks ask on their own.
_Streamed = tuple[int, dict[str, list[Any]], dict[str, tuple[int]]]


@dataclass(frozen=True, slots=True)
class Read:
    """What some checks found in one partition; one that is missing in ``values`` cannot be asked of it."""

    rows: int
    values: dict[str, Sequence[Any]]
    """The answers to ``parts_of`` each check."""
    own: dict[str, Sequence[Any]]


def read(run: Run, partitions: Sequence[Relation], checks: list[Check]) -> list[Read | None]:
    """Ask each partition what can be put together; none for one whose rows cannot be counted."""
    found = []
    for relation, streamed in zip(partitions, _streamed(run, partitions, checks), strict=True):
        part = run.beside(relation, checks, stream=False, parts_of=parts_of)
        values: dict[str, Sequence[Any]] = {}
        own: dict[str, Sequence[Any]] = {}
        if streamed is not None:
            part.row_count = streamed[0]
            values, own = dict(streamed[1]), dict(streamed[2])
        scanned, _ = part.answers([check for check in checks if check.name not in values])
        found.append(_read(part, checks, values | scanned, own))
    return found


def _read(
    part: Run, checks: Sequence[Check], values: dict[str, Sequence[Any]], own: dict[str, Sequence[Any]]
) -> Read | None:
    for check in checks:
        asks = isinstance(check, Unique | Relationship) and check.name in values and check.name not in part.proofs
        if asks and check.name not in own:
            answer = part.attempt(partial(check.own, part.connection, part.relation))
            if isinstance(answer, Refused):
                del values[check.name]
            else:
                own[check.name] = answer
    return None if part.row_count is None else Read(part.row_count, values, own)


def _streamed(run: Run, partitions: Sequence[Relation], checks: list[Check]) -> Sequence[_Streamed | None]:
    """What one stream over all of them answers; none for each where it does not pay, or fails."""
    nothing = [None] * len(partitions)
    sizes = run.attempt(partial(sizes_of, run.connection, partitions))
    if isinstance(sizes, Refused) or not partitions:
        return nothing
    whole = run.beside(run.relation, checks, stream=run.stream, parts_of=parts_of)
    together = Size(sum(size.rows for size in sizes), max(size.blocks for size in sizes))
    plan = whole.stream_plan(checks, size=together)
    if isinstance(plan, str):
        return nothing
    from dbplatform.quality.streaming.plan import place_of
    from dbplatform.quality.streaming.reading import answers, streamed_each
    from dbplatform.quality.streaming.sessions import StreamRefused

    places = [place_of(run.connection, relation, size.blocks) for relation, size in zip(partitions, sizes, strict=True)]
    found: list[_Streamed | None] = []
    try:
        for total in streamed_each(run.connection, plan, places, tell=run.tell):
            one = run.attempt(partial(answers, run.connection, plan, total))
            found.append(None if isinstance(one, Refused) else (one.rows, one.parts, one.own))
    except StreamRefused:
        return nothing
    return found
