"""A database of our own making in a ledger: something of everything that the service shows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from dbplatform.ledger.advice import AdviceRecord
from dbplatform.ledger.backups import BackupRecord, DrillRecord
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation
from dbplatform.ledger.monitoring import Alert
from dbplatform.monitoring.metrics import Metric, Metrics, kind_of
from dbplatform.monitoring.record import record
from dbplatform.monitoring.statements import Count, Counts
from dbplatform.monitoring.windows import record_statements
from dbplatform_tests.web.report_samples import Made, put_run


def measured(ledger: Ledger, name: str, at: datetime, **values: float) -> Metrics:
    """One collection of these values, with a chain of locks."""
    metrics = Metrics(
        database=name,
        at=at,
        values={
            metric: Metric(name=metric, value=value, unit=kind_of(metric).unit, labels={"table": f"t{at:%M}"})
            for metric, value in values.items()
        },
        absent={"replication_lag_s": "there is no replica"},
        unmeasured={"locks": "not now"},
        worst={
            "blocked": [
                {"pid": 12, "blocked_by": [11], "seconds": 3.5, "mode": "ShareLock", "relation": "public.t"},
                {"pid": 13, "blocked_by": [12, 11], "seconds": 1.5, "mode": None, "relation": None},
            ]
        },
    )
    record(ledger, metrics)
    return metrics


def put_alert(ledger: Ledger, database: str, metric: str = "cache_hit_ratio", *, state: str = "firing") -> int:
    """An alert; its number."""
    now = datetime.now(UTC)
    with ledger.session() as session:
        alert = Alert(
            database=database,
            key=f"{metric}/{now.timestamp()}",
            metric=metric,
            labels={},
            state=state,
            severity="critical",
            change=1,
            since=now,
            seen_at=now,
            fired_at=now if state != "pending" else None,
            resolved_at=now if state == "resolved" else None,
            value=0.5,
            limit_words="< 0.90",
            cause=f"{metric} is 0.5",
        )
        session.add(alert)
        session.flush()
        return alert.id


def recorded_database(ledger: Ledger, name: str = "shop") -> datetime:
    """Something of everything; the time of the newest collection."""
    now = datetime.now(UTC).replace(microsecond=0)
    values = {"cache_hit_ratio": 0.5, "longest_transaction_s": 7200.0, "connections_active": 3.0, "commits_per_s": 9.5}
    for minutes in (2, 1, 0):
        measured(ledger, name, now - timedelta(minutes=minutes), **values, database_bytes=2e9 - minutes)
    text = "select * from orders where id = $1"
    for minutes, calls in ((1, 10), (0, 20)):
        count = Count(calls=calls, ms=calls * 4000.0, rows=calls, hit=1, read=2, temp=0)
        at = now - timedelta(minutes=minutes)
        record_statements(
            ledger, name, Counts(at=at, reset=1.0, dealloc=0, whole=True, counts={7: count}, texts={7: text})
        )
    put_alert(ledger, name)
    put_alert(ledger, name, "deadlocks", state="resolved")
    made = [Made(name="a", status="failed", failed_rows=3)]
    put_run(ledger, f"check-of-{name}", made, database=name, in_dagster=True)
    with ledger.session() as session:
        session.add(
            AdviceRecord(
                id=f"advice-{name}", database=name, kind="missing_index", subject="orders(id)", severity="warning",
                reason="it is scanned", evidence={"scans": 3}, lock="SHARE UPDATE EXCLUSIVE", cost="a minute",
                confidence="proven", document="https://example.invalid/", sql="create index on orders (id)",
                state="open", first_seen_at=now, seen_at=now, changed_at=now,
            )
        )  # fmt: skip
        session.add_all(
            Operation(
                database=name, kind="migrate", run_id="0a1b" if number else None, actor="dagster" if number else "ada",
                status="succeeded", started_at=now - timedelta(hours=number + 1),
                finished_at=now - timedelta(hours=number + 1) + timedelta(seconds=2), summary={},
            )
            for number in range(3)
        )  # fmt: skip
        session.add(
            Operation(
                database=name, kind="partition", actor="ada", status="succeeded", started_at=now - timedelta(days=2),
                finished_at=now - timedelta(days=2),
                summary={"tables": [{"table": "public.o", "existing": 4, "default_rows": 0, "horizon_days": 92.0}]},
            )
        )  # fmt: skip
        session.add(Operation(database=name, kind="archive", actor="ada", status="running", started_at=now))
        session.add(
            BackupRecord(
                id=f"b-{name}", database=name, kind="logical", status="complete", location="/backups/b", run_id="0a1b",
                started_at=now, taken_at=now, finished_at=now, bytes=10, sha256="0" * 64, proven_at=now,
            )
        )  # fmt: skip
        session.flush()
        session.add(
            DrillRecord(
                backup_id=f"b-{name}", database=name, status="proven", started_at=now, finished_at=now, run_id="2c/d",
                rto_seconds=12.5, rpo_seconds=60.0,
            )
        )  # fmt: skip
    return now
