"""Numbers, times and verdicts in words, the same in a report, on the service and on the command line."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from typing import Any

from dbplatform.reporting.causes import BAD
from dbplatform.reporting.evidence import CheckEvidence, RunEvidence

#: A value longer than this is shown by its beginning.
_VALUE_CHARACTERS = 200


def number(value: float | int | None) -> str:
    """``336,776`` for a count; a measured number with as many digits as say something."""
    if value is None:
        return "\N{EN DASH}"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else ("∞" if value > 0 else "-∞")
    if value == int(value) and abs(value) < 1e15:
        text = f"{int(value):,}"
    elif abs(value) >= 1e15 or abs(value) < 1e-4:
        text = f"{value:.4g}"
    else:
        decimals = max(0, 4 - math.floor(math.log10(abs(value)))) if abs(value) < 1e4 else 1
        text = f"{value:,.{decimals}f}".rstrip("0").rstrip(".")
    return text


def percent(part: int, whole: int | None) -> str | None:
    """``2.09 %``, never rounded to nothing or to all; none where there is no whole."""
    if not whole:
        return None
    share = 100 * part / whole
    if 0 < share < 0.01:
        return "< 0.01 %"
    if 99.99 < share < 100:
        return "> 99.99 %"
    return f"{share:.2f}".rstrip("0").rstrip(".") + " %"


def duration(seconds: float) -> str:
    """``42 ms``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``, ``4,707.7 days``."""
    if abs(seconds) < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if abs(seconds) < 59.95:
        return f"{seconds:.1f} s"
    if abs(seconds) >= 2 * 86_400:
        return f"{seconds / 86_400:,.1f} days"
    sign = "-" if seconds < 0 else ""
    minutes, rest = divmod(round(abs(seconds)), 60)
    return f"{sign}{minutes} min {rest:02d} s" if minutes < 60 else f"{sign}{minutes // 60} h {minutes % 60:02d} min"


def measured(check: CheckEvidence) -> str:
    """The measured value; the age that a freshness check measures in seconds as a length of time."""
    if check.type == "freshness" and check.value is not None and math.isfinite(check.value):
        return duration(check.value)
    return number(check.value)


def utc(moment: datetime) -> str:
    """``2026-11-21 20:45:50 UTC``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def counted(many: int, noun: str) -> str:
    """``1 check``, ``1,204 checks``."""
    return f"{many:,} {noun}{'' if many == 1 else 's'}"


def value_text(value: Any) -> str:
    """One value of a failed row as it is read, cut where it is very long."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _VALUE_CHARACTERS else f"{text[:_VALUE_CHARACTERS]}… ({len(text):,} characters)"


def headline(run: RunEvidence) -> str:
    """The verdict as one sentence without its full stop: ``7 of 26 checks failed on 3 of 5 tables``."""
    total = len(run.checks)
    if not total:
        return "No check ran, so nothing is proven"
    failed, errored, accepted = run.count("failed"), run.count("errored"), run.count("accepted")
    learning = sum(check.learning for check in run.checks)
    where = f"on {sum(table.count(*BAD) > 0 for table in run.tables)} of {counted(len(run.tables), 'table')}"
    if failed:
        sentence = f"{failed:,} of {counted(total, 'check')} failed"
        if errored:
            sentence += f" and {errored:,} could not be judged"
        sentence += f" {where}"
    elif errored:
        sentence = f"{errored:,} of {counted(total, 'check')} could not be judged {where}"
    elif accepted:
        sentence = f"{run.count('passed'):,} of {counted(total, 'check')} passed"
    else:
        everything = "The only check" if total == 1 else f"All {counted(total, 'check')}"
        sentence = f"{everything} passed on {counted(len(run.tables), 'table')}"
    if accepted > learning:
        sentence += f", {counted(accepted - learning, 'failure')} accepted"
    if learning:
        sentence += f", {learning:,} not judged yet"
    sampled = sum(table.sampled for table in run.tables)
    if sampled:
        sentence += f", {sampled:,} of the checks judged by a sample"
    return sentence


def failed_rows_text(check: CheckEvidence) -> str:
    """``7,032 of 336,776 rows (2.09 %)``; empty for a check that does not judge rows."""
    if check.failed_rows is None:
        return ""
    if check.of_rows is None:
        return counted(check.failed_rows, "row")
    share = percent(check.failed_rows, check.of_rows)
    return f"{check.failed_rows:,} of {counted(check.of_rows, 'row')}" + (f" ({share})" if share else "")


def summary_lines(run: RunEvidence) -> list[str]:
    """The verdict as plain text: one line for the run, one per table, one per check that did not pass."""
    lines = [f"{run.database}: {run.verdict}. {headline(run)}."]
    for table in run.tables:
        rows = "rows not counted" if table.row_count is None else counted(table.row_count, "row")
        rows += f", {table.sampled} judged by a sample" if table.sampled else ""
        lines.append(
            f"  {table.table}: {table.count('passed')} of {counted(len(table.checks), 'check')} passed, {rows}"
        )
        for check in table.checks:
            if check.status != "passed":
                message = " ".join(check.message.split())
                told = check.failed_rows is not None and f"{check.failed_rows:,}" in message
                detail = ": ".join(part for part in ("" if told else failed_rows_text(check), message) if part)
                severity = " (warn)" if check.severity == "warn" else ""
                status = "NOT JUDGED" if check.learning else check.status.upper()
                lines.append(f"    {status}{severity} {check.name}: {detail}")
    return lines


def sample_lines(check: CheckEvidence, most: int) -> list[str]:
    """A few of the failing rows as text, a line each."""
    return [", ".join(f"{key}={value_text(value)}" for key, value in row.items()) for row in check.samples[:most]]
