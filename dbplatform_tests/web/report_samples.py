"""Quality runs of our own making in a ledger: enough findings to fill a report, and values that try to break it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation, QualityFailedRow, QualityResult, QualityRun, QualityTable
from dbplatform.ledger.reports import QualitySurroundings
from dbplatform.quality.results import verdict_of, verdict_of_statuses
from dbplatform.reporting.causes import BAD, RunAt, onset_of
from dbplatform.reporting.evidence import CheckEvidence, Point, RowCount, RunEvidence, TableEvidence

START = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
SCRIPT = "<script>document.title='taken'</script><img src=https://example.invalid/x onerror=alert(1)>"

_ARR_TME = """column "arr_tme" does not exist
LINE 1: select * from flights where arr_tme is not null
HINT:  Perhaps you meant to reference the column "flights.arr_time"."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """One result to be put into the ledger."""

    name: str
    status: str = "passed"
    table: str = "public.flights"
    type: str = "not_null"
    column: str | None = None
    severity: str = "error"
    blocking: bool = False
    owner: str | None = None
    failed_rows: int | None = 0
    considered_rows: int | None = None
    tolerance: str | None = None
    kept_rows: int | None = None
    value: float | None = None
    message: str = ""
    sql: str | None = "select 1"
    accepted_until: date | None = None
    rows: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def put_run(
    ledger: Ledger,
    run_id: str,
    made: Sequence[Made],
    *,
    database: str = "flights",
    started_at: datetime = START,
    seconds: float | None = 12.3,
    row_counts: Mapping[str, int | None] | None = None,
    in_dagster: bool = False,
) -> str:
    """Write one run into the ledger; ``seconds=None`` leaves it unfinished, without a verdict."""
    if row_counts is None:
        row_counts = {check.table: 336_776 for check in made}
    with ledger.session() as session:
        finished_at = None if seconds is None else started_at + timedelta(seconds=seconds)
        verdict = None if seconds is None else verdict_of_statuses(check.status for check in made)
        session.add(
            QualityRun(
                run_id=run_id,
                database=database,
                started_at=started_at,
                finished_at=finished_at,
                verdict=verdict,
                in_dagster=in_dagster,
            )
        )
        session.flush()
        for name, rows in row_counts.items():
            session.add(QualityTable(run_id=run_id, table_name=name, row_count=rows, seconds=1.42))
        results = [
            QualityResult(
                run_id=run_id,
                table_name=check.table,
                name=check.name,
                type=check.type,
                column_name=check.column,
                status=check.status,
                severity=check.severity,
                blocking=check.blocking,
                owner=check.owner,
                failed_rows=check.failed_rows,
                considered_rows=check.considered_rows,
                tolerance=check.tolerance,
                kept_rows=len(check.rows) if check.kept_rows is None else check.kept_rows,
                value=check.value,
                message=check.message,
                sql=check.sql,
                accepted_until=check.accepted_until,
            )
            for check in made
        ]
        session.add_all(results)
        session.flush()
        session.add_all(
            QualityFailedRow(result_id=result.id, ordinal=place, row=dict(row))
            for result, check in zip(results, made, strict=True)
            for place, row in enumerate(check.rows, 1)
        )
    return run_id


def rich_history(ledger: Ledger, runs: int = 14) -> str:
    """A database with some weeks behind it: old failures, new ones, fixed ones, an error, hostile values."""
    made = []
    for age in reversed(range(runs)):
        last = put_run(
            ledger,
            f"{0xA1B2C3D4 + age * 7919:08x}-5d6e-4f70-8192-a3b4c5d6e7f8",
            _checks(age),
            started_at=START - timedelta(days=age),
            row_counts={
                "public.flights": 336_776 - age * 1_204 if age != 5 else None,
                "public.planes": 3_322,
                "public.weather": 26_115 - age * 72,
                'public."Überraschung 日本 <b>"': 4,
                "public.airports": 1_458,
            },
        )
        made.append(last)
    rich_past(ledger, made)
    return last


def put_surroundings(
    ledger: Ledger, run_id: str, settings: Mapping[str, str], migrations: Sequence[Mapping[str, Any]] = ()
) -> None:
    """What a run saw of the server: settings that are not the default, and migrations that are new."""
    with ledger.session() as session:
        session.add(
            QualitySurroundings(
                run_id=run_id,
                settings={name: {"value": value, "source": "configuration file"} for name, value in settings.items()},
                newest_migration=9,
                migrations=[dict(one) for one in migrations],
            )
        )


def put_operation(
    ledger: Ledger,
    kind: str,
    started_at: datetime,
    summary: Mapping[str, Any],
    *,
    status: str = "succeeded",
    database: str = "flights",
    run_id: str | None = None,
) -> None:
    """Something that the platform did, and that took five seconds."""
    with ledger.session() as session:
        session.add(
            Operation(
                database=database,
                kind=kind,
                run_id=run_id,
                actor="dagster" if run_id else "ada",
                status=status,
                started_at=started_at,
                finished_at=None if status == "running" else started_at + timedelta(seconds=5),
                summary=dict(summary),
            )
        )


MIGRATION = {
    "version": "7",
    "description": f"tail numbers {SCRIPT}",
    "script": "V7__tail_numbers.sql",
    "type": "SQL",
    "by": "deploy",
    "at": (START - timedelta(hours=3)).isoformat(),
    "success": True,
}


def rich_past(ledger: Ledger, runs: Sequence[str]) -> None:
    """What happened between the last two of these runs, for the page to tell."""
    for run_id in runs[:-1]:
        put_surroundings(ledger, run_id, {"work_mem": "4MB", "server_version": "17.9"})
    put_surroundings(ledger, runs[-1], {"work_mem": "64MB", "server_version": "17.10"}, [MIGRATION])
    dagster = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
    moved = {"name": "old_flights", "table": "public.flights", "deleted_rows": 84_102}
    put_operation(ledger, "archive", START - timedelta(hours=20), moved, run_id=dagster)
    put_operation(ledger, "seed", START - timedelta(hours=2), {"profile": "dev", "loaded_rows": 336_776})
    put_operation(ledger, "restore_table", START - timedelta(hours=1), {}, status="failed")


def _checks(age: int) -> list[Made]:
    tailnum = [
        {"year": 2013, "month": 1, "day": 1 + n % 28, "carrier": "MQ", "flight": 4_000 + n, "tailnum": None}
        for n in range(30)
    ]
    hostile = [
        {"faa": SCRIPT, "name": "quote \" apostrophe ' amp & <b>bold</b>", "at": "2013-01-01T05:00:00+00:00"},
        {"faa": "‮drawkcab", "name": "日本語 😀 Ünïcödé", "at": None, "more": {"nested": [1, 2, {"x": "<i>"}]}},
        {"faa": "x" * 900, "name": "no_spaces_" * 30, "at": ""},
    ]
    planes_gone = 52_606 if age == 0 else 48_000 - age * 900
    return [
        Made(
            name="tailnum is not null",
            column="tailnum",
            owner="team:data",
            blocking=True,
            status="failed",
            failed_rows=2_512 - age * 31,
            kept_rows=2_512,
            rows=tailnum,
            message="2,512 rows have no tailnum.",
            sql="select carrier, flight, tailnum\nfrom public.flights\nwhere tailnum is null",
        ),
        Made(
            name="relationship tailnum to public.planes.tailnum",
            type="relationship",
            column="tailnum",
            owner="team:fleet",
            status="failed",
            failed_rows=planes_gone,
            kept_rows=100,
            rows=[{"flight": n, "tailnum": f"N{n}MQ"} for n in range(20)],
            considered_rows=334_264,
            tolerance="1%",
            message=f"{planes_gone:,} rows point to no plane; 1 % are tolerated.",
            sql="select f.flight, f.tailnum from public.flights f left join public.planes p using (tailnum)\n"
            "where f.tailnum is not null and p.tailnum is null",
        ),
        Made(
            name="mean of dep_delay",
            type="mean",
            column="dep_delay",
            failed_rows=None,
            value=12.639070257304708 + (age % 5) * 0.4,
            message="The mean is 12.64; -5 to 30 is right.",
        ),
        Made(
            name="null ratio of dep_time",
            type="null_ratio",
            column="dep_time",
            failed_rows=None,
            status="passed" if age else "failed",
            value=0.0245 + (0.006 if age == 0 else age * 0.0001),
            message="3.05 % are null; at most 3 % are right.",
        ),
        Made(
            name="freshness of time_hour",
            type="freshness",
            column="time_hour",
            severity="warn",
            status="failed",
            failed_rows=None,
            value=4_706.5,
            message="The newest row is 4,706 hours old; at most 24 are right.",
        ),
        Made(
            name="arrives_after_departing",
            type="sql",
            status="errored" if age in (0, 5) else "passed",
            failed_rows=None if age in (0, 5) else 0,
            message=_ARR_TME if age in (0, 5) else "",
            sql="select * from public.flights\nwhere arr_tme is not null" + " and dep_time is null" * 30,
        ),
        Made(
            name="unique carrier, flight, origin, time_hour", type="unique", column="carrier, flight, origin, time_hour"
        ),
        Made(
            name="accepted values of origin",
            type="accepted_values",
            column="origin",
            status="passed" if age != 1 else "failed",
            failed_rows=0 if age != 1 else 417,
        ),
        Made(
            name="range of distance",
            type="range",
            column="distance",
            failed_rows=1,
            message="1 row is outside; 0.1 % are tolerated.",
        ),
        Made(name="length of dest", type="length", column="dest"),
        Made(name="row count", type="row_count", failed_rows=None, value=336_776.0 - age * 1_204),
        Made(name="schema", type="schema", failed_rows=None),
        Made(name="anomaly of row_count", type="anomaly", failed_rows=None, value=0.43),
        *(
            Made(name=f"{column} is not null", column=column, table="public.planes", owner="team:fleet")
            for column in ("tailnum", "manufacturer", "model", "seats")
        ),
        Made(
            name="range of year",
            type="range",
            column="year",
            table="public.planes",
            status="accepted",
            accepted_until=date(2026, 12, 31),
            failed_rows=70,
            rows=[{"tailnum": "N201AA", "year": 0}],
            message="70 rows are outside 1950 to 2030; accepted until 2026-12-31.",
        ),
        *(
            Made(name=f"{column} in range", type="range", column=column, table="public.weather")
            for column in ("temp", "humid", "wind_speed", "pressure", "visib")
        ),
        Made(
            name="temp is known",
            column="temp",
            table="public.weather",
            severity="warn",
            status="failed" if age % 4 == 0 else "passed",
            failed_rows=1 if age % 4 == 0 else 0,
            rows=[{"origin": "EWR", "time_hour": "2013-08-22 13:00:00+00", "temp": None}],
            message="1 row has no temp.",
        ),
        Made(
            name=f"<b>bold</b> {SCRIPT}",
            type="matches",
            column='näme"<i>',
            table='public."Überraschung 日本 <b>"',
            status="failed",
            failed_rows=3,
            rows=hostile,
            owner="<u>owner</u>",
            message=f"3 rows do not match: {SCRIPT}",
            sql="select '</code></pre>" + SCRIPT + "'",
        ),
        *(
            Made(name=f"{column} is not null", column=column, table="public.airports")
            for column in ("faa", "name", "tzone")
        ),
        *([Made(name="lat in range", type="range", column="lat", table="public.airports")] if age else []),
    ]


def check_evidence(*, name: str, **fields: Any) -> CheckEvidence:
    """One check in memory; without more said it passed and is in its first run."""
    given: dict[str, Any] = {
        "type": "not_null",
        "column": None,
        "status": "passed",
        "severity": "error",
        "blocking": False,
        "owner": None,
        "failed_rows": 0,
        "considered_rows": None,
        "kept_rows": 0,
        "value": None,
        "tolerance": None,
        "message": "",
        "sql": None,
        "table": "public.flights",
        "row_count": 336_776,
        "samples": (),
        **fields,
    }
    now = Point(
        run_id="now", started_at=START, status=given["status"], failed_rows=given["failed_rows"], value=given["value"]
    )
    history = given.pop("history", (now,))
    onset = onset_of([(point.status, _run_at(point)) for point in reversed(history)], complete=len(history) < 20)
    return CheckEvidence(name=name, history=history, onset=onset if given["status"] in BAD else None, **given)


def _run_at(point: Point) -> RunAt:
    return RunAt(
        run_id=point.run_id, started_at=point.started_at, finished_at=point.started_at + timedelta(seconds=12.3)
    )


def table_evidence(
    name: str,
    checks: Sequence[CheckEvidence],
    *,
    row_count: int | None = 336_776,
    row_counts: tuple[RowCount, ...] = (),
) -> TableEvidence:
    """One table in memory; its checks become those of this table."""
    own = tuple(replace(check, table=name, row_count=row_count) for check in checks)
    return TableEvidence(table=name, row_count=row_count, seconds=1.42, checks=own, row_counts=row_counts)


def run_evidence(tables: Sequence[TableEvidence], *, database: str = "flights") -> RunEvidence:
    """One run in memory, its verdict derived as the engine derives it."""
    return RunEvidence(
        database=database,
        run_id="run",
        started_at=START,
        finished_at=START + timedelta(seconds=12.3),
        verdict=verdict_of(tables),
        tables=tuple(tables),
        previous=None,
        gone=(),
    )
