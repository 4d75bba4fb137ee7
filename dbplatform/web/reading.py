"""The documents about one database, made from the ledger alone: no managed database is asked for any of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import quote

from dbplatform.advice.record import advice_of
from dbplatform.advice.record import as_json as advice_json
from dbplatform.alerting import record as alert_record
from dbplatform.alerting import silences
from dbplatform.backups.catalogue import Backup, list_backups
from dbplatform.backups.drill import list_drills
from dbplatform.ledger.backups import DrillRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring import health, record
from dbplatform.monitoring.errors import NothingMeasured
from dbplatform.monitoring.metrics import Metrics, kind_of
from dbplatform.monitoring.probes.statements import NAME as STATEMENTS
from dbplatform.monitoring.record import Point
from dbplatform.operations import recorded, reviews, slow_statements
from dbplatform.operations.recorded import Run
from dbplatform.quality import record as quality_record
from dbplatform.quality.record import RunSummary
from dbplatform.reporting.store import ReportEntry, list_reports
from dbplatform.web import documents as d
from dbplatform.web.answers import NoSuchDatabase, NotMeasured
from dbplatform.web.location import Location

#: What the charts of a dashboard show, and for how long back.
CHARTED: Final = (
    "health_score", "connections_active", "connections_used_ratio", "cache_hit_ratio", "commits_per_s",
    "longest_transaction_s", "blocked_sessions", "database_bytes", "dead_tuple_ratio", "slow_statement_s",
)  # fmt: skip
_CHART_HOURS: Final = 3
MOST_POINTS: Final = 360
_TREND_RUNS: Final = 20
_DRILLS: Final = 10
_SHORT: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a list: ``limit`` entries from ``offset`` on; ``next`` is the address of what follows."""

    limit: int
    offset: int
    next: str

    def of(self, found: Sequence[Any]) -> tuple[list[Any], str | None]:
        """The part of a whole list, and the address of the next one where there is more."""
        rest = found[self.offset :]
        return list(rest[: self.limit]), self.next if len(rest) > self.limit else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The documents of one service. Each raises ``NoSuchDatabase`` for a name that nobody knows."""

    ledger: Ledger
    location: Location
    dagster_url: str | None

    def require(self, name: str) -> None:
        """Raise ``NoSuchDatabase`` unless it is declared, or something is recorded of it."""
        if name not in self.location.names and not recorded.is_known(self.ledger, name):
            raise NoSuchDatabase(name=name, hint="See which there are: /api/v1/databases")

    def measured(self, name: str) -> Metrics:
        """What was measured last. Raises ``NotMeasured``."""
        found = record.latest(self.ledger, name)
        if found is None:
            self.require(name)
            raise NotMeasured(name=name, hint=f"Nothing was measured yet: dbplatform metrics {name}")
        return found

    def health(self, name: str) -> d.HealthDocument:
        """Raises ``NotMeasured`` and ``NothingMeasured``."""
        return self._health(self.measured(name))

    def _health(self, metrics: Metrics) -> d.HealthDocument:
        limits = self.location.limits(metrics.database)
        return d.HealthDocument.model_validate(health.score(metrics, limits).as_json())

    def metrics(self, name: str) -> d.MetricsDocument:
        """Raises ``NotMeasured``."""
        return d.MetricsDocument.model_validate(self.measured(name).as_json())

    def history(self, name: str, metric: str, hours: int) -> d.MetricHistory:
        """Raises ``UnknownMetric``."""
        unit = kind_of(metric).unit
        self.require(name)
        points = record.history(self.ledger, name, metric, since=datetime.now(UTC) - timedelta(hours=hours))
        thinned = points[:: -1 * (-(-len(points) // MOST_POINTS) or 1)][::-1]
        return d.MetricHistory(database=name, metric=metric, unit=unit, history=_points(thinned))

    def connections(self, name: str) -> d.Connections:
        """Raises ``NotMeasured``."""
        return _connections(self.measured(name))

    def slow_queries(
        self, name: str, *, hours: int = 1, min_mean_s: float = slow_statements.MIN_MEAN_S
    ) -> d.SlowQueries:
        """Of the last hours before the newest collection."""
        metrics = record.latest(self.ledger, name)
        if metrics is None:
            self.require(name)
        found = slow_statements.known_slow(
            self.ledger,
            name,
            reason=metrics.unmeasured.get(STATEMENTS) if metrics is not None else "nothing was measured yet",
            now=metrics.at if metrics is not None else datetime.now(UTC),
            window=timedelta(hours=hours),
            min_mean_s=min_mean_s,
        )
        return d.SlowQueries.model_validate(found.as_json())

    def recommendations(self, name: str, part: Part) -> d.Recommendations:
        """The open ones."""
        self.require(name)
        found, more = part.of(advice_of(self.ledger, name, "open", "applying", "undoing"))
        advice = [d.Recommendation.model_validate(advice_json(one)) for one in found]
        return d.Recommendations(database=name, advice=advice, next=more)

    def alerts(self, name: str, part: Part, *, resolved: bool) -> d.Alerts:
        """The open ones; with ``resolved`` the past ones, too."""
        self.require(name)
        found, more = part.of(alert_record.list_alerts(self.ledger, name, resolved=resolved))
        return d.Alerts(database=name, alerts=[alert_document(one) for one in found], next=more)

    def backups(self, name: str, part: Part) -> d.Backups:
        """With the newest drills."""
        self.require(name)
        found, more = part.of(list_backups(self.ledger, name))
        return d.Backups(
            database=name,
            backups=[d.BackupDocument.model_validate({**one.as_json(), "run_url": self.run_url(one)}) for one in found],
            drills=[self._drill(one) for one in list_drills(self.ledger, name)[:_DRILLS]],
            next=more,
        )

    def quality(self, name: str) -> d.Quality:
        """Of the newest run that has a verdict."""
        self.require(name)
        runs = quality_record.runs(self.ledger, name, limit=_TREND_RUNS)
        newest = next((run for run in runs if run.verdict is not None), None)
        found = quality_record.load_run(self.ledger, newest.run_id) if newest is not None else None
        reports = list_reports(self.ledger, name, 1)
        return d.Quality(
            database=name,
            run_id=newest.run_id if newest else None,
            run_url=self.run_url(newest) if newest else None,
            verdict=newest.verdict if newest else None,
            report=report_url(reports[0]) if reports else None,
            unreviewed=len(reviews.waiting(self.ledger, name)),
            tables=[d.TableDocument.model_validate(table.as_json()) for table in (found.tables if found else ())],
            runs=[
                d.QualityRunDocument.model_validate({**fields_of(run), "run_url": self.run_url(run)}) for run in runs
            ],
        )

    def runs(self, name: str, part: Part) -> d.Runs:
        """Operations and runs of checks."""
        self.require(name)
        found = recorded.runs(self.ledger, name, limit=part.limit + 1, offset=part.offset)
        more = part.next if len(found) > part.limit else None
        return d.Runs(database=name, runs=[self._run(one) for one in found[: part.limit]], next=more)

    def _run(self, run: Run) -> d.RunDocument:
        seconds = (run.finished_at - run.started_at).total_seconds() if run.finished_at else None
        return d.RunDocument.model_validate(
            {
                **fields_of(run),
                "seconds": seconds,
                "url": self.run_url(run),
            }
        )

    def _drill(self, drill: DrillRecord) -> d.DrillDocument:
        fields = {field: getattr(drill, field) for field in d.DrillDocument.model_fields if hasattr(drill, field)}
        return d.DrillDocument.model_validate({**fields, "run_url": self.run_url(drill)})

    def run_url(self, run: Run | RunSummary | ReportEntry | Backup | DrillRecord) -> str | None:
        """Where Dagster shows the run; none where it is not Dagster's, or nobody knows where Dagster answers."""
        # Of backups and drills no other run is recorded.
        if run.run_id is None or self.dagster_url is None or not getattr(run, "in_dagster", True):
            return None
        return f"{self.dagster_url}/runs/{quote(run.run_id, safe='')}"

    def dashboard(self, name: str) -> d.Dashboard:
        """All of it; what is not known is said, and takes nothing else away."""
        self.require(name)
        metrics, unknown, score = record.latest(self.ledger, name), [], None
        now = metrics.at if metrics is not None else datetime.now(UTC).replace(second=0, microsecond=0)
        try:
            if metrics is None:
                raise NotMeasured(name=name)
            score = self._health(metrics)
        except (NothingMeasured, NotMeasured) as error:
            unknown.append(d.Unknown(part="health", reason=error.message))
        first = Part(limit=_SHORT, offset=0, next="")
        series = record.series(
            self.ledger, name, CHARTED, since=now - timedelta(hours=_CHART_HOURS), most=MOST_POINTS // 2
        )
        place = quote(name, safe="")
        links = {"api": f"/api/v1/databases/{place}", "reports": f"/reports/{place}/"}
        return d.Dashboard(
            database=name,
            at=now.isoformat(),
            declared=name in self.location.names,
            begun=recorded.has_begun(self.ledger, name),
            health=score,
            series={metric: _points(points) for metric, points in series.items()},
            connections=_connections(metrics) if metrics is not None else None,
            slow_queries=self.slow_queries(name),
            recommendations=self.recommendations(name, first).advice,
            partitions=self._horizons(name, now),
            backups=self.backups(name, first),
            quality=self.quality(name),
            alerts=[alert_document(one) for one in alert_record.list_alerts(self.ledger, name)[:100]],
            silences=[
                silence_document(one)
                for one in silences.list_silences(self.ledger, now=datetime.now(UTC))
                if one.database in (None, name)
            ],
            running=[self._run(one) for one in recorded.runs(self.ledger, name, running=True, limit=_SHORT)],
            unknown=unknown,
            links={**links, **({"dagster": self.dagster_url} if self.dagster_url else {})},
        )

    def _horizons(self, name: str, now: datetime) -> list[d.Horizon]:
        return [
            d.Horizon(
                table=one.table,
                until=one.until.isoformat() if one.until else None,
                days=round((one.until - now) / timedelta(days=1), 2) if one.until else None,
                numbers=one.numbers,
                partitions=one.partitions,
                default_rows=one.default_rows,
                looked_at=one.looked_at.isoformat(),
            )
            for one in recorded.horizons(self.ledger, name)
        ]


def alert_document(alert: alert_record.AlertRecord) -> d.AlertDocument:
    """An alert, as the API gives it."""
    return d.AlertDocument.model_validate(alert.as_json())


def silence_document(silence: silences.SilenceRecord) -> d.SilenceDocument:
    """A silence, as the API gives it."""
    return d.SilenceDocument.model_validate(silence.as_json())


def fields_of(run: Run | RunSummary | ReportEntry) -> dict[str, Any]:
    """What is told of it; where it ran tells the address of the run."""
    return {name: value for name, value in asdict(run).items() if name != "in_dagster"}


def report_url(entry: ReportEntry) -> str:
    """Where the service shows a report."""
    return f"/reports/{quote(entry.location)}"


def _points(points: Sequence[Point]) -> list[d.PointOfTime]:
    return [d.PointOfTime.model_validate(point.as_json()) for point in points]


def _connections(metrics: Metrics) -> d.Connections:
    def value(name: str) -> float | None:
        return metrics.values[name].value if name in metrics.values else None

    blocked = [d.Blocked.model_validate(dict(row)) for row in metrics.worst.get("blocked", ())]
    names = {
        "used_ratio": "connections_used_ratio",
        "active": "connections_active",
        "idle": "connections_idle",
        "idle_in_transaction": "connections_idle_in_transaction",
        "waiting": "connections_waiting",
        "locks": "locks",
        "longest_transaction_seconds": "longest_transaction_s",
        "longest_statement_seconds": "longest_statement_s",
        "pool_used_ratio": "pool_used_ratio",
        "pool_waiting_clients": "pool_waiting_clients",
    }
    return d.Connections.model_validate(
        {
            "database": metrics.database,
            "at": metrics.at,
            **{field: value(name) for field, name in names.items()},
            "blocked": blocked,
            "locks_tree": _tree(blocked),
            "unmeasured": {name: metrics.unmeasured[name] for name in names.values() if name in metrics.unmeasured},
        }
    )


def _tree(blocked: Sequence[d.Blocked]) -> list[d.Lock]:
    """Who holds whom back, each session once: below the one of those it waits for that is nearest to the top.

    Of sessions that wait for each other the first one stands at the top.
    """
    waits: Mapping[int, d.Blocked] = {one.pid: one for one in blocked}
    tops = list(dict.fromkeys(pid for one in blocked for pid in one.blocked_by if pid not in waits))
    below: dict[int, list[int]] = {}

    def hang(above: Sequence[int]) -> None:
        below.update((pid, []) for pid in above)
        nearest = deque(above)
        while nearest:
            pid = nearest.popleft()
            for one in blocked:
                if pid in one.blocked_by and one.pid not in below:
                    below[pid].append(one.pid)
                    below[one.pid] = []
                    nearest.append(one.pid)

    hang(tops)
    for one in blocked:
        if one.pid not in below:
            tops.append(one.pid)
            hang([one.pid])

    def node(pid: int) -> d.Lock:
        one = waits.get(pid)
        return d.Lock(
            pid=pid,
            seconds=one.seconds if one else None,
            mode=one.mode if one else None,
            relation=one.relation if one else None,
            waiting=[node(other) for other in below[pid]],
        )

    return [node(pid) for pid in tops]
