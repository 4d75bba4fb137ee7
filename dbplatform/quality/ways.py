"""How each check of a table is answered, in words: what ``check --explain`` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from dbplatform.quality.checks.anomaly import Anomaly
from dbplatform.quality.checks.base import Check
from dbplatform.quality.checks.keys import Relationship, Unique

if TYPE_CHECKING:
    from dbplatform.quality.streaming.plan import Streaming

How = Literal["proven", "streamed", "fused", "own query", "sampled", "error"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One check: the way to its answer, and the reason for it."""

    check: str
    how: How
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionWay:
    """One partition: whether its rows are read, or earlier answers taken over, and the reason for it."""

    partition: str
    read: bool
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionWays:
    """The partitions of a table (none: why it is read as a whole), and why some checks are read as a whole, by name."""

    partitions: tuple[PartitionWay, ...]
    refused: str | None
    whole: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableWays:
    """A table: why its columns are not streamed (none: they are), and the way of each check.

    ``partitions`` is none where nothing of an earlier run is to be taken over.
    """

    table: str
    stream: str | None
    checks: tuple[Way, ...]
    partitions: PartitionWays | None = None

    def as_json(self) -> dict[str, Any]:
        """The table, and a list of its checks."""
        return asdict(self)


def way(
    check: Check,
    *,
    proof: str | None,
    plan: Streaming | str,
    whole: PartitionWays | None = None,
    beside: Sequence[str] = (),
) -> Way:
    """The way of a check that can run; ``plan`` is the stream of its table, or why there is none.

    ``whole`` tells which checks of the table are not answered partition by partition; ``beside`` are those whose query
    answers it, too.
    """
    found = _way(check, proof=proof, plan=plan)
    if beside:
        found = replace(found, why=f"{found.why}, together with {', '.join(beside)}")
    if whole is not None and check.name in whole.whole:
        return replace(found, why=f"{found.why}; over the whole table, because {whole.whole[check.name]}")
    return found


def _way(check: Check, *, proof: str | None, plan: Streaming | str) -> Way:
    if proof is not None:
        return Way(check=check.name, how="proven", why=f"by {proof}; only the rows considered are counted")
    own = _own(check)
    if isinstance(plan, str):
        return Way(check=check.name, how="own query", why=own) if own else _fused(check, plan)
    if check.name not in plan.checks:
        reason = plan.left_out.get(check.name, "it reads no column")
        return Way(check=check.name, how="own query", why=own) if own else _fused(check, reason)
    if own and check.name not in plan.keys and check.name not in plan.targets:
        return Way(check=check.name, how="own query", why=own)
    asked = plan.asked_of_server(check.name)
    if asked:
        why = f"the server evaluates {', '.join(asked)} in the stream"
    elif check.name in plan.keys and not plan.keys[check.name].exact:
        why = "by hashes; where one repeats, the server compares the keys"
    else:
        why = "the client judges the values"
    return Way(check=check.name, how="streamed", why=why)


def _own(check: Check) -> str:
    """What the check asks by itself where it is not streamed; empty: nothing."""
    if isinstance(check, Unique):
        return "one aggregation of its key in the server"
    if isinstance(check, Relationship):
        return "one anti-join in the server"
    if isinstance(check, Anomaly):
        return "" if check.by is None else f"one aggregation of its window, by {'hour' if check.hourly else 'day'}"
    return "" if type(check).own is Check.own else "its own statement"


def _fused(check: Check, why: str) -> Way:
    return Way(check=check.name, how="fused", why=f"by the one scan of the server: {why}")
