"""What was seen of a database, as observations for ``alerting``: each source with keys of its own.

Metrics against their limits (``<metric>``), limits that can no longer be measured (``unmeasured``), the database that
cannot be measured (``reachable``), WAL that does not reach the archive (``wal_archive``), data-quality checks that
failed or could not run (``check:<table>.<name>``), runs that failed (``run:<job>``; of chosen assets ``run:materialize
<asset>``), runs that do not end (``stuck:<job>``), failing reports that nobody has
reviewed in time (``unreviewed``), other asset checks such as drift or partitions that run out
(``asset_check:<asset>:<name>``), and schedules and sensors that fail (``schedule:<name>``). Of the platform itself: a
look that failed or did not end (``watch:<database>``).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from dbplatform.alerting.record import AlertRecord
from dbplatform.alerting.states import Observation, Severity
from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.monitoring.thresholds import Judgements
from dbplatform.operations import wal, watching
from dbplatform.operations.reviews import Waiting
from dbplatform.postgres.words import Interval
from dbplatform.quality.results import CheckResult

REACHABLE, WAL_ARCHIVE, UNREVIEWED, CHECK, RUN = "reachable", "wal_archive", "unreviewed", "check:", "run:"
STUCK = "stuck:"
UNMEASURED = "unmeasured"
ASSET_CHECK, SCHEDULE = "asset_check:", "schedule:"
#: Of the platform itself, one for each database.
WATCH_OF = "watch:"


@dataclass(frozen=True, slots=True, kw_only=True)
class RunEnd:
    """A run that ended, as whoever runs the jobs knows it."""

    job: str
    succeeded: bool
    reason: str = ""
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StuckRun:
    """A run that has not ended, and will not, or goes on for longer than it should."""

    job: str
    run_id: str
    dead: bool
    """Whether its process is gone; otherwise it only takes long."""
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AssetCheckEnd:
    """The last evaluation of an asset check that is not a data-quality check; ``severity`` is none when it passed."""

    asset: str
    check: str
    evaluated: bool = True
    """False where nothing is known: it never ran, or is about to."""
    severity: Severity | None = None
    words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """The last tick of a schedule, or of a sensor; ``error`` is none when it did not fail."""

    name: str
    error: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Runs:
    """The jobs that a database has and their runs that ended, oldest first; its asset checks and its schedules.

    ``stuck`` are all that are so now: who is not among them any more is well again.
    """

    jobs: Collection[str] = ()
    ended: Sequence[RunEnd] = ()
    stuck: Sequence[StuckRun] = ()
    checks: Sequence[AssetCheckEnd] = ()
    ticks: Sequence[Tick] = ()


def watched(declared: Declared, problem: str | None) -> Observation:
    """Whether a database was looked at, and why not: otherwise nobody would miss its alerts."""
    return Observation(
        key=f"{WATCH_OF}{declared.name}",
        metric=f"watch of {declared.name}",
        severity="critical" if problem is not None else None,
        cause=f"{declared.name} is not watched: {problem}".rstrip(".") if problem else f"{declared.name} is watched",
        advice=f"None of its alerts can come, nor end. dbplatform doctor {declared.name} says more; the log of the "
        "Dagster daemon has the error."
        if problem
        else "",
        labels={"database": declared.name},
        owners=tuple(declared.database.owners),
    )


def unwatched(declared: Sequence[Declared], alerts: Sequence[AlertRecord]) -> list[Observation]:
    """An end for each open alert on the watch over a database that is no longer declared."""
    there = {f"{WATCH_OF}{one.name}" for one in declared}
    return [
        Observation(key=alert.key, metric=alert.metric, severity=None, cause=f"{alert.metric} is no longer declared")
        for alert in alerts
        if alert.key.startswith(WATCH_OF) and alert.key not in there
    ]


def reachable(declared: Declared, problem: PlatformError | None) -> Observation:
    """Whether the database could be measured, and why not."""
    return Observation(
        key=REACHABLE,
        metric=REACHABLE,
        severity="critical" if problem is not None else None,
        cause=problem.message.rstrip(".") if problem is not None else f"{declared.name} can be measured",
        advice=f"{problem.hint or ''} dbplatform doctor {declared.name} says more.".strip() if problem else "",
    )


def wal_archive(declared: Declared, problem: PlatformError | OSError | None) -> Observation:
    """Whether the WAL that its server has put down came into the archive, and why not."""
    reason = problem.message if isinstance(problem, PlatformError) else f"{problem}."
    return Observation(
        key=WAL_ARCHIVE,
        metric=WAL_ARCHIVE,
        severity="critical" if problem is not None else None,
        cause=reason.rstrip(".") if problem is not None else "the WAL reaches its archive",
        advice=f"Until it does, a lost disk loses what was written. dbplatform wal status {declared.name} says more."
        if problem
        else "",
    )


def metrics(judgements: Judgements) -> list[Observation]:
    """One for each limit that could be judged."""
    return [
        Observation(
            key=one.metric,
            metric=one.metric,
            severity=one.severity,
            value=one.value,
            limit=one.limit,
            cause=one.cause,
            labels=one.labels,
            advice=one.policy.kind.advice,
        )
        for one in judgements.judged
    ]


def unmeasured(declared: Declared, reasons: Mapping[str, str]) -> Observation:
    """Whether every limit can still be measured: nobody is told of a limit that is not."""
    words = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return Observation(
        key=UNMEASURED,
        metric=UNMEASURED,
        severity="warning" if reasons else None,
        value=float(len(reasons)),
        cause=f"nothing is known of {words}".rstrip(".") if reasons else "every limit can be measured",
        advice="Nobody is told when one of these is breached. dbplatform health "
        f"{declared.name} shows what could not be judged, dbplatform doctor the rights that are missing."
        if reasons
        else "",
    )


def _check_keys(declared: Declared) -> set[str]:
    return {f"{CHECK}{policy.table}.{check.name}" for policy in declared.database.quality for check in policy.checks}


def checks(declared: Declared, results: Sequence[tuple[str, CheckResult]]) -> list[Observation]:
    """The last of these results (table and result, oldest first) of each declared check."""
    declared_keys = _check_keys(declared)
    newest = {f"{CHECK}{table}.{result.name}": (table, result) for table, result in results}
    return [_check(key, *newest[key]) for key in newest if key in declared_keys]


def _check(key: str, table: str, result: CheckResult) -> Observation:
    severity: Severity | None = None
    if result.status == "errored":
        severity = "critical"
    elif result.status == "failed":
        severity = "warning" if result.severity == "warn" else "critical"
    table = table.removeprefix("public.")
    said = "could not run: " if result.status == "errored" else ""
    return Observation(
        key=key,
        metric=f"{table} {result.name}",
        severity=severity,
        value=result.value if result.failed_rows is None else float(result.failed_rows),
        cause=f"{table} {result.name}: {said}{result.message.rstrip('.')}",
        advice="The report of the run shows the rows.",
        labels={"table": table, "check": result.name, **({"owner": result.owner} if result.owner else {})},
        owners=(result.owner,) if result.owner else (),
    )


def unreviewed(declared: Declared, waiting: Sequence[Waiting], *, now: datetime) -> list[Observation]:
    """Whether a failing report has waited longer for a review than is declared; nothing where that is not."""
    within = review_within(declared)
    if within is None:
        return []
    late = [report for report in waiting if now - report.finished_at >= within.timedelta]
    cause = f"no failing report has waited longer than {within} for a review"
    if late:
        many = "a failing report has" if len(late) == 1 else f"{len(late)} failing reports have"
        cause = (
            f"{many} waited longer than {within} for a review; the oldest is of {late[0].started_at:%Y-%m-%d %H:%M} UTC"
        )
    return [
        Observation(
            key=UNREVIEWED,
            metric=UNREVIEWED,
            severity="warning" if late else None,
            value=float(len(late)),
            limit=f"reviewed within {within}",
            cause=cause,
            advice=f"dbplatform report list {declared.name} --unreviewed shows them; dbplatform report review ID "
            "--comment TEXT notes that somebody has read one."
            if late
            else "",
        )
    ]


def review_within(declared: Declared) -> Interval | None:
    """How long a failing report may wait for a review; none where nothing is declared."""
    policy = declared.database.reports
    return policy.review_within if policy is not None else None


def runs(runs: Runs | None) -> list[Observation]:
    """The last end of each job."""
    last = {end.job: end for end in (runs.ended if runs is not None else ())}
    return [
        Observation(
            key=f"{RUN}{end.job}",
            metric=f"run of {end.job}",
            severity=None if end.succeeded else "critical",
            cause=f"the job {end.job} {'succeeded' if end.succeeded else f'failed: {end.reason}'}".rstrip("."),
            advice=end.advice,
            labels={"job": end.job},
        )
        for end in last.values()
    ]


def stuck(runs: Runs | None, alerts: Sequence[AlertRecord]) -> list[Observation]:
    """The runs that do not end, by their job; and an end for each open alert on one that has."""
    if runs is None:
        return []
    now = {one.job: one for one in sorted(runs.stuck, key=lambda one: one.dead)}
    over = [alert.key.removeprefix(STUCK) for alert in alerts if alert.key.startswith(STUCK)]
    return [_stuck(job, now.get(job)) for job in {**now, **dict.fromkeys(over)}]


def _stuck(job: str, run: StuckRun | None) -> Observation:
    verb = "free" if run is not None and run.dead else "cancel"
    return Observation(
        key=f"{STUCK}{job}",
        metric=f"end of {job}",
        severity=None if run is None else "critical" if run.dead else "warning",
        cause=f"the job {job}: {run.words}" if run is not None else f"no run of the job {job} is stuck",
        advice=f"Runs of this database may wait for it. dbplatform runs list shows it; dbplatform runs {verb} "
        f"{run.run_id} ends it."
        if run is not None
        else "",
        labels={"job": job},
    )


def asset_checks(runs: Runs | None) -> list[Observation]:
    """The last evaluation of each: a green run with a failed check is trouble all the same."""
    return [
        Observation(
            key=_asset_check_key(end),
            metric=f"{end.check} of {end.asset}",
            severity=end.severity,
            cause=f"the check {end.check} of {end.asset} {f'failed: {end.words}' if end.severity else 'passed'}".rstrip(
                "."
            ),
            advice="The check's page in the Dagster UI has the evidence." if end.severity else "",
            labels={"asset": end.asset, "check": end.check},
        )
        for end in (runs.checks if runs is not None else ())
        if end.evaluated
    ]


def _asset_check_key(end: AssetCheckEnd) -> str:
    return f"{ASSET_CHECK}{end.asset}:{end.check}"


def schedules(runs: Runs | None) -> list[Observation]:
    """The last tick of each schedule and sensor: one that fails starts nothing, and nobody would miss it."""
    return [
        Observation(
            key=SCHEDULE + tick.name,
            metric=f"schedule {tick.name}",
            severity=None if tick.error is None else "critical",
            cause=f"{tick.name} {'ticks' if tick.error is None else f'fails: {tick.error}'}".rstrip("."),
            advice="It starts nothing until it is mended; its ticks in the Dagster UI have the whole error.",
        )
        for tick in (runs.ticks if runs is not None else ())
    ]


def withdrawn(declared: Declared, alerts: Sequence[AlertRecord], runs: Runs | None) -> list[Observation]:
    """An end for each open alert whose threshold, check, job or schedule is no longer declared."""
    limits = {policy.metric for policy in watching.limits(declared)} | {REACHABLE, UNMEASURED}
    limits |= {WAL_ARCHIVE} if wal.archives_wal(declared) else set()
    limits |= {UNREVIEWED} if review_within(declared) is not None else set()
    keys = _check_keys(declared)
    gone = []
    for alert in alerts:
        if alert.key.startswith(CHECK):
            there = alert.key in keys
        elif alert.key.startswith(STUCK):
            there = True  # ``stuck`` ends it
        elif alert.key.startswith(RUN):
            there = runs is None or alert.key.removeprefix(RUN) in runs.jobs
        elif alert.key.startswith(ASSET_CHECK):
            there = runs is None or alert.key in {_asset_check_key(end) for end in runs.checks}
        elif alert.key.startswith(SCHEDULE):
            there = runs is None or alert.key.removeprefix(SCHEDULE) in {tick.name for tick in runs.ticks}
        else:
            there = alert.key in limits
        if not there:
            cause = f"{alert.metric} is no longer declared"
            gone.append(Observation(key=alert.key, metric=alert.metric, severity=None, cause=cause))
    return gone
