"""The report for programs: the document of ``check --json``, with what the page says beside it."""

from __future__ import annotations

import json
import math
from typing import Any

from dbplatform.reporting.causes import Cause, RunAt
from dbplatform.reporting.comparison import kind_of_change
from dbplatform.reporting.evidence import CheckEvidence, Point, RunEvidence, TableEvidence


def render_document(run: RunEvidence) -> str:
    """The whole document as text. The same evidence gives the same text, byte for byte."""
    return json.dumps(document(run), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def document(run: RunEvidence) -> dict[str, Any]:
    """The verdict, each check with its past and some of its failing rows, and what happened before it failed."""
    return {
        "database": run.database,
        "run_id": run.run_id,
        "verdict": run.verdict,
        "started_at": run.started_at.isoformat(),
        "finished_at": run.finished_at.isoformat(),
        "seconds": run.seconds,
        "counts": {status: run.count(status) for status in ("passed", "failed", "errored", "accepted")},
        "previous": (
            {"run_id": run.previous[0], "started_at": run.previous[1].isoformat()} if run.previous else None
        ),
        "no_longer_checked": [{"table": table, "check": name} for table, name in run.gone],
        "causes": [_cause(cause) for cause in run.causes],
        "tables": [_table(table) for table in run.tables],
    }  # fmt: skip


def _table(table: TableEvidence) -> dict[str, Any]:
    return {
        **table.as_json(),
        "score": table.count("passed") / len(table.checks) if table.checks else None,
        "row_counts": [
            {"started_at": one.started_at.isoformat(), "row_count": one.rows} for one in table.row_counts
        ],
        "checks": [_check(check) for check in table.checks],
    }  # fmt: skip


def _check(check: CheckEvidence) -> dict[str, Any]:
    onset = check.onset
    return {
        **check.as_json(),
        "change": kind_of_change(check),
        "since": _run(onset.first) if onset else None,
        "since_is_known": onset.complete if onset else None,
        "last_good": _run(onset.last_good) if onset and onset.last_good else None,
        "history": [_point(point) for point in check.history],
        "samples": [dict(row) for row in check.samples],
    }


def _point(point: Point) -> dict[str, Any]:
    return {
        "run_id": point.run_id,
        "started_at": point.started_at.isoformat(),
        "status": point.status,
        "failed_rows": point.failed_rows,
        "value": point.value if point.value is not None and math.isfinite(point.value) else None,
    }


def _cause(cause: Cause) -> dict[str, Any]:
    return {
        "last_good": _run(cause.last_good),
        "first_bad": _run(cause.first),
        "checks": [{"table": table, "check": name} for table, name in cause.checks],
        "facts": [
            {
                "kind": fact.kind,
                "words": fact.words,
                "at": fact.at.isoformat() if fact.at else None,
                "run_id": fact.run_id,
            }
            for fact in cause.facts
        ],
        "not_known": cause.not_known,
    }


def _run(run: RunAt) -> dict[str, Any]:
    return {"run_id": run.run_id, "started_at": run.started_at.isoformat()}
