"""Advice for a declared database: found, kept in the ledger, followed and taken back under the writer lock."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dbplatform.advice import record
from dbplatform.advice.apply import Report, apply_advice, plan_apply, plan_undo, undo_advice
from dbplatform.advice.catalog import ReplicaUse, read_replica
from dbplatform.advice.find import Surroundings, find_advice
from dbplatform.advice.model import Findings, Kind, Named
from dbplatform.advice.policy import AdvicePolicy
from dbplatform.advice.tables import Bloated, SequenceUse
from dbplatform.declaration.loading import Declared
from dbplatform.errors import CannotConnect, VariableNotSet
from dbplatform.ledger.advice import AdviceRecord
from dbplatform.monitoring import windows
from dbplatform.monitoring.metrics import Metrics
from dbplatform.monitoring.probes.statements import NAME as STATEMENTS
from dbplatform.monitoring.statements import Count
from dbplatform.operations import watching
from dbplatform.operations.diagnosis import pools
from dbplatform.operations.platform import Platform
from dbplatform.operations.reading import replica_of
from dbplatform.postgres.connection import AutocommitConnection, ServerRefused, SessionLost, connect
from dbplatform.postgres.embedded.settings import memory_bytes
from dbplatform.postgres.identifiers import Relation

#: Each question to the database takes no longer, and waits no longer for a lock.
_STATEMENT_TIMEOUT_MS, _LOCK_TIMEOUT_MS = 30_000, 2_000
#: Bloat that is worth a rebuild: the share and the bytes that hold nothing; as the limits of the metrics.
_BLOAT = {"table": (0.4, 200 << 20), "index": (0.4, 100 << 20)}
_SEQUENCE_USED = 0.75
#: So many statements are planned, the dearest first.
_MOST = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Advised:
    """The open advice of a database, with what could not be examined."""

    database: str
    advice: Sequence[AdviceRecord]
    findings: Findings

    @property
    def warnings(self) -> int:
        """How many of them are open and of severity warning."""
        return sum(one.severity == "warning" and one.state == "open" for one in self.advice)

    def as_json(self) -> dict[str, Any]:
        """One database of ``advise list --json``."""
        return {
            "database": self.database,
            "advice": [record.as_json(one) for one in self.advice],
            "unexamined": dict(self.findings.unexamined),
        }


def advise(platform: Platform, declared: Declared, *, everything: bool = False) -> Advised:
    """Look for advice and keep it; with ``everything`` also that which was followed, refused or is gone.

    Raises ``NothingToMeasure``, ``VariableNotSet`` and ``CannotConnect``.
    """
    findings = _found(platform, declared)
    record.record_findings(platform.ledger, findings, now=datetime.now(UTC))
    states = ("open", "applying", "undoing")
    more = ("applied", "undone", "dismissed", "gone") if everything else ()
    shown = record.advice_of(platform.ledger, declared.name, *states, *more)
    return Advised(database=declared.name, advice=shown, findings=findings)


def plan(platform: Platform, id_: str) -> tuple[AdviceRecord, tuple[str, ...]]:
    """An advice, and what following it would run. Raises ``UnknownAdvice``, ``NotApplicable`` and ``NotFollowed``."""
    known = record.advice_by_id(platform.ledger, id_)
    return known, plan_apply(known)


def plan_back(platform: Platform, id_: str) -> tuple[AdviceRecord, tuple[str, ...]]:
    """An advice, and what taking it back would run. Raises as ``plan``."""
    known = record.advice_by_id(platform.ledger, id_)
    return known, plan_undo(known)


def apply(platform: Platform, id_: str) -> Report:
    """Follow an advice, where it still holds; recorded as an operation. Raises as ``apply_advice``."""
    known = record.advice_by_id(platform.ledger, id_)
    if not plan_apply(known):
        return Report(record=known, changed=False)
    declared = platform.declarations.get(known.database)
    metrics = watching.measure(platform, declared)
    with platform.writer(declared, "advise") as connection:
        # Of two that follow the same one, the second finds it done.
        known = record.advice_by_id(platform.ledger, id_)
        around = _surroundings(platform, declared, metrics)
        _bounded(connection)
        fresh = None
        if known.state != "applying" and plan_apply(known):
            found = find_advice(connection, _policy(declared), around, database=declared.name)
            fresh = next((one for one in found.advice if one.id == id_), None)
        with platform.ledger.operation(declared.name, "advise") as summary:
            summary.update(advice=id_, kind=known.kind, subject=known.subject, sql=known.sql)
            report = apply_advice(connection, platform.ledger, known, fresh, around.statements)
            summary.update(sql=report.record.sql, receipt=report.record.receipt)
            return report


def undo(platform: Platform, id_: str) -> Report:
    """Take an advice back; recorded as an operation. Raises as ``undo_advice``."""
    known, statements = plan_back(platform, id_)
    if not statements:
        return Report(record=known, changed=False)
    declared = platform.declarations.get(known.database)
    with platform.writer(declared, "advise") as connection:
        known = record.advice_by_id(platform.ledger, id_)
        with platform.ledger.operation(declared.name, "advise undo") as summary:
            summary.update(advice=id_, kind=known.kind, subject=known.subject, sql=list(statements))
            return undo_advice(connection, platform.ledger, known)


def plan_dismissal(platform: Platform, id_: str) -> AdviceRecord:
    """The advice that ``dismiss`` would note, as it is. Raises the same."""
    return record.plan_dismissal(platform.ledger, id_)


def dismiss(platform: Platform, id_: str, reason: str) -> AdviceRecord:
    """Note that an advice is not wanted. Raises ``UnknownAdvice`` and ``NotFollowed``."""
    return record.dismiss(platform.ledger, id_, reason, now=datetime.now(UTC))


def _policy(declared: Declared) -> AdvicePolicy:
    return declared.database.advice or AdvicePolicy()


def _found(platform: Platform, declared: Declared) -> Findings:
    metrics = watching.measure(platform, declared)
    around = _surroundings(platform, declared, metrics)
    with connect(platform.target(declared), work="advise") as connection:
        _bounded(connection)
        return find_advice(connection, _policy(declared), around, database=declared.name)


def _bounded(connection: AutocommitConnection) -> None:
    connection.execute(
        "select set_config('statement_timeout', %s, false), set_config('lock_timeout', %s, false)",
        (str(_STATEMENT_TIMEOUT_MS), str(_LOCK_TIMEOUT_MS)),
    )


def _surroundings(platform: Platform, declared: Declared, metrics: Metrics) -> Surroundings:
    """What the ledger, the replica, the machine and the declarations say; ``metrics`` were just measured."""
    unknown: dict[Kind, str] = {}
    policy, now = _policy(declared), datetime.now(UTC)
    if STATEMENTS in metrics.unmeasured:
        unknown["missing_index"] = metrics.unmeasured[STATEMENTS]
    replica: ReplicaUse | None = None
    try:
        replica = _replica(declared)
    except (VariableNotSet, CannotConnect, SessionLost, ServerRefused) as error:
        unknown["unused_index"] = f"the replica may need them, and could not be asked: {error.message}"
    embedded = declared.database.connection.url_env is None
    target = platform.target(declared)
    with connect(target, work="advise") as connection:
        places = pools.places(connection)
    return Surroundings(
        statements=_statements(platform, declared, metrics, since=now - policy.window.timedelta, now=now),
        replica=replica,
        memory=policy.memory or (memory_bytes() if embedded else None),
        bloated=_bloated(metrics),
        sequences=[
            SequenceUse(name=one["name"], used=float(one["used"]), last=str(one["last"]))
            for one in metrics.worst.get("sequences", ())
            if float(one["used"]) >= _SEQUENCE_USED
        ],
        pools=pools.wanted(platform, declared, target),
        places=places,
        pools_matter=declared.database.connection.environment in ("staging", "production"),
        unknown=unknown,
    )


def _statements(
    platform: Platform, declared: Declared, metrics: Metrics, *, since: datetime, now: datetime
) -> list[Named]:
    """The statements from ``since`` on, the dearest first; until the ledger reaches back so far, all that the extension
    has counted since its reset."""
    ledger, name = platform.ledger, declared.name
    first = windows.first_window(ledger, name)
    if metrics.statements is None or (first is not None and first <= since):
        found = windows.statements_of(ledger, name, since=since, now=now)
        return [_named(one.queryid, one.text, one.count) for one in found if one.text]
    counts, texts = metrics.statements.counts, windows.texts_of(ledger, name)
    dearest = sorted((queryid for queryid in counts if queryid in texts), key=lambda queryid: -counts[queryid].ms)
    return [_named(queryid, texts[queryid], counts[queryid]) for queryid in dearest[:_MOST]]


def _named(queryid: int, query: str, count: Count) -> Named:
    return Named(queryid=str(queryid), query=query, calls=count.calls, rows=count.rows)


def _replica(declared: Declared) -> ReplicaUse | None:
    target = replica_of(declared)
    if target is None:
        return None
    with connect(
        target, work="advise", statement_timeout_ms=_STATEMENT_TIMEOUT_MS, lock_timeout_ms=_LOCK_TIMEOUT_MS
    ) as connection:
        return read_replica(connection)


def _bloated(metrics: Metrics) -> list[Bloated]:
    """The table and the index that hold most of nothing, where that is worth a rebuild."""
    found: list[Bloated] = []
    for kind in ("table", "index"):
        metric = metrics.values.get(f"{kind}_bloat_ratio")
        ratio, least = _BLOAT[kind]
        if metric is not None and metric.value > ratio and (metric.sample or 0) > least and kind in metric.labels:
            found.append(
                Bloated(
                    kind="table" if kind == "table" else "index",
                    relation=Relation.parse(metric.labels[kind]),
                    unused_bytes=metric.sample or 0.0,
                    ratio=metric.value,
                )
            )
    return found
