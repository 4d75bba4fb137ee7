"""What is asked of benchmarks, and the plan that follows from it: which of them, where, within what bounds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from dbplatform.benchmarking import record
from dbplatform.benchmarking.errors import NotAllowedNow, NotComparable, TooManyClients, UnknownBenchmark
from dbplatform.benchmarking.policy import BenchmarkPolicy, QueryPolicy, ScriptPolicy
from dbplatform.declaration.loading import Declared
from dbplatform.errors import UsageError
from dbplatform.operations.benchmark_sides import create_index
from dbplatform.operations.gates import not_declared
from dbplatform.operations.platform import Platform
from dbplatform.postgres.pools import PoolSettings, pool_settings

#: The name of a baseline that is given none.
BASELINE = "baseline"

Benchmark = QueryPolicy | ScriptPolicy
Mode = Literal["run", "baseline", "settings", "index", "migration", "pool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What to measure, and what against."""

    mode: Mode = "run"
    names: tuple[str, ...] = ()
    """None: all that are declared."""
    clients: int | None = None
    """Of scripts, in place of what they declare; of a pool its callers."""
    seconds: float | None = None
    """For each benchmark, in place of what is declared."""
    baseline: str | None = None
    """The name under which a run is kept."""
    to: str = BASELINE
    """The baseline or run to compare with."""
    settings: Mapping[str, str] | None = None
    index: str | None = None
    migration: str | None = None
    yes: bool = False
    """A person has agreed that a production server is measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would measure, where, and within what bounds. Nothing was run for it."""

    database: str
    words: str
    benchmarks: tuple[Mapping[str, Any], ...]
    connections: int
    """The most that are open at a time."""
    seconds: float
    """The most that is measured."""

    def as_json(self) -> dict[str, Any]:
        """The document of ``--dry-run --json``."""
        return {
            "database": self.database,
            "plan": self.words,
            "benchmarks": [dict(one) for one in self.benchmarks],
            "connections": self.connections,
            "seconds": self.seconds,
        }


def plan(platform: Platform, declared: Declared, wanted: Wanted) -> Plan:
    """What ``measure`` would do; reads the declaration, and of a comparison with a baseline the ledger.

    Raises as ``measure`` does before it begins.
    """
    policy, chosen = chosen_of(declared, wanted)
    words = words_of(wanted)
    for one in chosen:
        text_of(declared, one)
    allowed(declared, policy, wanted, chosen)
    if wanted.mode == "baseline":
        record.find(platform.ledger, declared.name, wanted.to)
    copies = wanted.mode in ("index", "migration")
    seconds = seconds_of(policy, wanted)
    listed = [
        {
            "name": one.name,
            "kind": kind_of(one),
            "clients": clients_of(one, wanted),
            "place": "copy" if copies or one.writes else policy.on,
            "target_ms": target_ms(one),
        }
        for one in chosen
    ]
    return Plan(
        database=declared.name,
        words=words,
        benchmarks=tuple(listed),
        connections=connections(declared, chosen, wanted),
        seconds=min(policy.budget.timedelta.total_seconds(), seconds * (1 if wanted.mode == "pool" else len(chosen))),
    )


def chosen_of(declared: Declared, wanted: Wanted) -> tuple[BenchmarkPolicy, tuple[Benchmark, ...]]:
    """The policy, and what is measured. Raises ``NotDeclared`` and ``UnknownBenchmark``."""
    policy = declared.database.benchmarks
    if policy is None:
        if wanted.mode == "pool":
            return BenchmarkPolicy(), ()
        raise not_declared(declared, "benchmarks", "benchmarks")
    every: tuple[Benchmark, ...] = (*policy.queries, *policy.scripts)
    for name in wanted.names:
        if name not in {one.name for one in every}:
            known = ", ".join(one.name for one in every) or "none"
            raise UnknownBenchmark(database=declared.name, name=name, hint=f"Declared are: {known}.")
    return policy, tuple(one for one in every if not wanted.names or one.name in wanted.names)


def allowed(declared: Declared, policy: BenchmarkPolicy, wanted: Wanted, chosen: Sequence[Benchmark]) -> None:
    """Raises ``NotAllowedNow`` and ``TooManyClients``."""
    production = declared.database.connection.environment == "production"
    open_ = policy.window is not None and policy.window.is_open(datetime.now(UTC))
    if production and _measured(wanted, chosen) and not wanted.yes and not open_:
        reason = "it is not measured unasked" if policy.window is None else f"its window is {policy.window}"
        raise NotAllowedNow(
            database=declared.name, reason=reason, hint="Ask for it by --yes, or declare benchmarks.window."
        )
    most = settings_of(declared).most
    if connections(declared, chosen, wanted) > most:
        raise TooManyClients(
            clients=connections(declared, chosen, wanted),
            most=most,
            database=declared.name,
            hint="Use fewer clients, or raise connection.pool.max_overflow as far as the server allows.",
        )


def _measured(wanted: Wanted, chosen: Sequence[Benchmark]) -> bool:
    """Whether the declared database itself is, and not copies alone."""
    if wanted.mode in ("index", "migration"):
        return False
    return wanted.mode == "pool" or any(not one.writes for one in chosen)


def connections(declared: Declared, chosen: Sequence[Benchmark], wanted: Wanted) -> int:
    """The most that are open on the declared database at a time: a script has somebody who watches beside it."""
    if wanted.mode == "pool":
        return max(callers(settings_of(declared), wanted), settings_of(declared).most)
    if wanted.mode in ("index", "migration"):
        return 0
    reading = [one for one in chosen if not one.writes]
    counted = [1 + clients_of(one, wanted) if isinstance(one, ScriptPolicy) else 1 for one in reading]
    return max(counted, default=0)


def callers(settings: PoolSettings, wanted: Wanted) -> int:
    """How many ask a pool at a time: as many as it may have connections."""
    return wanted.clients or settings.most


def settings_of(declared: Declared) -> PoolSettings:
    """The declared pool, whose connections are the budget."""
    connection = declared.database.connection
    return pool_settings(connection.environment, connection.pool)


def seconds_of(policy: BenchmarkPolicy, wanted: Wanted) -> float:
    """How long each benchmark is measured at most."""
    return wanted.seconds or policy.seconds.timedelta.total_seconds()


def clients_of(one: Benchmark, wanted: Wanted) -> int:
    """How many sessions run it at a time; a query is timed by one."""
    return (wanted.clients or one.clients) if isinstance(one, ScriptPolicy) else 1


def kind_of(one: Benchmark) -> Literal["query", "script"]:
    """What it is called in reports."""
    return "query" if isinstance(one, QueryPolicy) else "script"


def target_ms(one: Benchmark) -> float | None:
    """What its median may be at most, in milliseconds."""
    return one.target.timedelta.total_seconds() * 1000 if one.target is not None else None


def text_of(declared: Declared, one: Benchmark) -> str:
    """The statement or script. Raises ``UsageError`` for a file that is not there."""
    if one.file is None:
        assert isinstance(one, QueryPolicy)
        return str(one.sql)
    path = declared.folder / one.file
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(
            f"The file {one.file} of the benchmark {one.name} cannot be read: {reason}.", hint="Correct its name."
        ) from error


def words_of(wanted: Wanted) -> str:
    """What is done, in a few words. Raises ``NotComparable`` where a comparison has no other side."""
    if wanted.mode == "settings" and not wanted.settings:
        raise NotComparable(what="Nothing", reason="no setting is named", hint="Write --setting NAME=VALUE.")
    if wanted.mode == "index":
        create_index(str(wanted.index))
    return {
        "run": "measure as it is",
        "baseline": f"measure as it is, and compare with {wanted.to}",
        "settings": "compare in turns: as it is, and with "
        + ", ".join(f"{name} = {value}" for name, value in (wanted.settings or {}).items()),
        "index": "compare in turns two copies from the newest backup: as it is, and with the index",
        "migration": f"compare in turns two copies from the newest backup: as it is, and at version {wanted.migration}",
        "pool": "measure the pool by its size, and a connection each",
    }[wanted.mode]
