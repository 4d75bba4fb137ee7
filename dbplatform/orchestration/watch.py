"""Metrics, health and alerts of a declared database as assets; each threshold is an asset check on ``alerts``.

The sensor (``sensors``) looks once a minute and shows here what changed; a person, or the main job, can look at any
time. What could not be judged is shown neither as passed nor as failed, but as not evaluated; what could not be
*measured* fails, as a warning that says why.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from dbplatform.alerting.record import AlertRecord
from dbplatform.alerting.states import Severity, reaches
from dbplatform.declaration.loading import Declared
from dbplatform.monitoring.health import Health
from dbplatform.monitoring.metrics import KINDS
from dbplatform.monitoring.probes.collecting import FIRST_COLLECTION
from dbplatform.monitoring.words import value_words
from dbplatform.operations import alerts as alerting
from dbplatform.operations import wal, watching
from dbplatform.operations.alerts import Watched
from dbplatform.operations.observations import (
    CHECK,
    REACHABLE,
    RUN,
    STUCK,
    UNMEASURED,
    UNREVIEWED,
    WAL_ARCHIVE,
    review_within,
)
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.steps import step, table_metadata

#: In a run they come last, behind what they look at; not by a dependency, for they must look when that has failed, too.
_LATE, _LAST = {"dagster/priority": "-10"}, {"dagster/priority": "-20"}

#: The checks beside those of the thresholds.
QUALITY, RUNS, OTHERS, CHANNELS = "quality", "runs", "others", "channels"


def watching_assets(platform: Platform, declared: Declared) -> list[dg.AssetsDefinition]:
    """What is measured, how well the database is, and what is wrong with it."""
    return [_metrics(platform, declared), _health(platform, declared), _alerts(platform, declared)]


def _metrics(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.metrics(declared.name),
        op_tags=_LATE,
        description="One cheap pass over the statistics views; its numbers are kept in the ledger.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres"},
    )
    def metrics(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/metrics"):
            try:
                found = watching.measure(platform, declared)
            except watching.NothingToMeasure as nothing:
                return dg.MaterializeResult(metadata={"dry run": options.dry_run, "metrics": str(nothing)})
        rows = [
            {"metric": name, "value": value_words(metric.value, metric.unit), "of": metric.detail}
            for name, metric in found.values.items()
        ]
        return dg.MaterializeResult(
            metadata={
                "dry run": options.dry_run,
                **{name: metric.value for name, metric in found.values.items()},
                **({"missing rights": "; ".join(found.missing)} if found.missing else {}),
                **table_metadata("measured", rows, ("metric", "value", "of")),
            }
        )

    return metrics


def _health(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    @dg.asset(
        key=keys.health(declared.name),
        deps=[keys.metrics(declared.name)],
        op_tags=_LATE,
        description="The score from 0 to 100: 100 less the points of each breached limit.",
        group_name=declared.name,
        owners=declared.database.owners,
        kinds={"postgres"},
    )
    def health(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> dg.MaterializeResult[Any]:
        with step(context, f"{declared.name}/health"):
            try:
                found = watching.score(declared, watching.measured(platform, declared))
            except watching.NothingToMeasure as nothing:
                return dg.MaterializeResult(metadata={"dry run": options.dry_run, "health": str(nothing)})
        return dg.MaterializeResult(metadata={"dry run": options.dry_run, **health_metadata(found)})

    return health


def health_metadata(found: Health) -> dict[str, Any]:
    """The score, and each deduction with what to do."""
    deductions = [one.as_json() for one in found.deductions]
    reasons = [{"metric": name, "reason": reason} for name, reason in found.not_judged.items()]
    return {
        "score": found.score,
        "grade": found.grade,
        "judged limits": found.judged,
        **table_metadata(
            "deductions", deductions, ("metric", "value", "limit", "points", "cause", "advice", "document")
        ),
        **table_metadata("not judged", reasons, ("metric", "reason")),
    }


def _alerts(platform: Platform, declared: Declared) -> dg.AssetsDefinition:
    key = keys.alerts(declared.name)

    @dg.multi_asset(
        name="__".join(key.path),
        specs=[
            dg.AssetSpec(
                key,
                description="What is wrong now: a check for each limit, for runs, data quality and the channels. The "
                "sensor looks once a minute, and tells whoever is declared under notify.",
                skippable=True,
                group_name=declared.name,
                owners=declared.database.owners,
                kinds={"postgres"},
            )
        ],
        check_specs=[
            dg.AssetCheckSpec(name=name, asset=key, description=words) for name, words in _check_words(declared).items()
        ],
        can_subset=True,
        op_tags=_LAST,
    )
    def alerts(context: dg.AssetExecutionContext, options: dg.ResourceParam[Options]) -> Iterator[Any]:
        now = datetime.now(UTC)
        with step(context, f"{declared.name}/alerts"):
            if options.dry_run:
                yield dg.MaterializeResult(asset_key=key, metadata={"dry run": True, "plan": "Nobody would be told."})
                return
            looked = alerting.watch(platform, declared, now=now)
            alerting.tell(platform, [declared], now=now)
            states = check_states(platform, declared, looked)
        if context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=key, metadata=_alerts_metadata(looked))
        selected = {check.name for check in context.selected_asset_check_keys}
        for name, state in states.items():
            if name in selected:
                yield dg.AssetCheckResult(
                    asset_key=key,
                    check_name=name,
                    passed=state.passed,
                    severity=state.dagster_severity,
                    description=state.words,
                    metadata=state.metadata,
                )

    return alerts


def _alerts_metadata(looked: Watched) -> dict[str, Any]:
    rows = [alert.as_json() for alert in looked.alerts]
    return {
        "firing": len(looked.firing),
        "pending": len(looked.alerts) - len(looked.firing),
        **table_metadata("alerts", rows, ("id", "state", "severity", "metric", "limit", "cause", "since")),
    }


#: What is well when no alert says otherwise.
_OF_ALERTS = (REACHABLE, UNMEASURED, WAL_ARCHIVE, UNREVIEWED, RUNS, OTHERS, QUALITY)


def _check_words(declared: Declared) -> dict[str, str]:
    """The checks on ``alerts``, and what each says."""
    words = {
        policy.metric: f"{KINDS[policy.metric].meaning} Limits: "
        + ", ".join(
            f"{name} {limit}" for name, limit in (("warning", policy.warn), ("critical", policy.critical)) if limit
        )
        + f", for {policy.for_}."
        for policy in watching.limits(declared)
    }
    words[REACHABLE] = "The database can be reached and measured."
    words[UNMEASURED] = "No limit is left unmeasured that is declared, or was measured before."
    if wal.archives_wal(declared):
        words[WAL_ARCHIVE] = "The WAL that the server puts down reaches its archive."
    words[RUNS] = "No job, and no asset that was run by itself, failed when it ran last; no run is stuck."
    words[OTHERS] = "No other asset check (drift, lint, undo, partitions) failed, and no schedule or sensor fails."
    if declared.database.quality:
        words[QUALITY] = "No data-quality check failed, or could not run, when it was asked last."
    if review_within(declared) is not None:
        words[UNREVIEWED] = f"Somebody reviews a failing report within {review_within(declared)}."
    if declared.database.notify:
        words[CHANNELS] = "Every channel takes its messages."
    return words


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckState:
    """What one check on ``alerts`` shows now; ``sign`` changes whenever it has to be shown anew."""

    severity: Severity | None
    words: str
    metadata: Mapping[str, Any]
    sign: str

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return self.severity is None

    @property
    def dagster_severity(self) -> dg.AssetCheckSeverity:
        """A warning is WARN, everything else is ERROR."""
        return dg.AssetCheckSeverity.WARN if self.severity == "warning" else dg.AssetCheckSeverity.ERROR


def check_states(platform: Platform, declared: Declared, looked: Watched) -> dict[str, CheckState]:
    """The state of each check after a look; one that could not be judged is left out."""
    states: dict[str, CheckState] = {}
    if not looked.there:
        return states
    names = _check_words(declared)
    by_check: dict[str, list[AlertRecord]] = {}
    for alert in looked.alerts:
        name = _check_of(alert)
        by_check.setdefault(name if name in names else OTHERS, []).append(alert)
    judged = {one.metric: one.cause for one in looked.judgements.judged} if looked.judgements else {}
    unmeasured = looked.metrics.unmeasured if looked.metrics is not None else {}
    for name in names:
        here = by_check.get(name, [])
        if any(alert.state == "firing" for alert in here):
            states[name] = _firing([alert for alert in here if alert.state == "firing"])
        elif name in judged:
            states[name] = _quiet(judged[name], here)
        elif unmeasured.get(name, FIRST_COLLECTION) != FIRST_COLLECTION:
            words = f"Could not be measured: {unmeasured[name]}"
            states[name] = CheckState(severity="warning", words=words, metadata={}, sign=words)
        elif name in _OF_ALERTS and (name not in (REACHABLE, UNMEASURED) or looked.metrics is not None):
            states[name] = _quiet("no alert", here)
        elif name == CHANNELS:
            states[name] = _channels(platform, declared)
    return states


def _check_of(alert: AlertRecord) -> str:
    if alert.key.startswith(CHECK):
        return QUALITY
    return RUNS if alert.key.startswith((RUN, STUCK)) else alert.key


def _firing(here: list[AlertRecord]) -> CheckState:
    critical = any(reaches(alert.severity, "critical") for alert in here)
    rows = [alert.as_json() for alert in here]
    return CheckState(
        severity="critical" if critical else "warning",
        words="; ".join(alert.cause for alert in here[:5]) + (f" and {len(here) - 5} more" if len(here) > 5 else ""),
        metadata={
            "alerts": len(here),
            **({"value": round(here[0].value, 3)} if len(here) == 1 and here[0].value is not None else {}),
            **({"limit": here[0].limit} if len(here) == 1 and here[0].limit else {}),
            **table_metadata("firing", rows, ("id", "severity", "cause", "since", "acknowledged_by")),
        },
        sign="firing " + " ".join(f"{alert.id}/{alert.severity}" for alert in sorted(here, key=lambda one: one.id)),
    )


def _quiet(words: str, pending: list[AlertRecord]) -> CheckState:
    if pending:
        words = f"{words}; not for long enough yet, since {pending[0].since:%Y-%m-%d %H:%M} UTC"
    return CheckState(severity=None, words=words, metadata={}, sign="passed")


def _channels(platform: Platform, declared: Declared) -> CheckState:
    names = [channel.url_env for channel in declared.database.notify]
    failing = alerting.waiting_messages(platform.ledger, names)
    if not failing:
        return CheckState(
            severity=None, words="no message waits for a receiver that failed", metadata={}, sign="passed"
        )
    words = "; ".join(f"{name}: {reason.rstrip('.')}" for name, reason in failing.items())
    return CheckState(severity="critical", words=words, metadata={}, sign=words)
