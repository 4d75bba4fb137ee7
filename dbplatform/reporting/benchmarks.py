"""The page of a run of benchmarks: verdicts, times, plots, and what they hang on, in one HTML file.

It is drawn from the ledger. The newest run of a database is also a file beside its reports, ``benchmarks.html``.
"""

from __future__ import annotations

from collections.abc import Sequence

from dbplatform.benchmarking import record
from dbplatform.benchmarking.model import Report, Result
from dbplatform.declaration.loading import Declared
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import Platform
from dbplatform.reporting import benchmark_charts, charts
from dbplatform.reporting.charts import Chart
from dbplatform.reporting.errors import ReportNotFound
from dbplatform.reporting.page import environment
from dbplatform.reporting.publish import destination_of
from dbplatform.reporting.store import store_at_destination, write_file
from dbplatform.reporting.words import counted

_KINDS = ("run", "compare", "pool")


def render(report: Report, history: Sequence[Report]) -> str:
    """The whole page; ``history`` are earlier plain runs, the newest first. The same runs give the same text."""
    past = [one for one in reversed(history) if one.started_at < report.started_at]
    return (
        environment()
        .get_template("benchmarks.html.j2")
        .render(
            report=report,
            state=state(report),
            headline=headline(report),
            drawn={one.name: benchmark_charts.rounds(one, compared=report.kind == "compare") for one in report.results},
            spans={one.name: benchmark_charts.span(one.comparison) for one in report.results},
            trends={one.name: _trend(one, past) for one in report.results},
            share=benchmark_charts.percent,
            most=max((one["per_second"] for one in report.pool), default=1.0),
        )
    )


def write(platform: Platform, declared: Declared, report: Report) -> str:
    """Write the page of the newest run beside the reports; where it lies. Raises ``ReportNotWritten``."""
    page = render(report, record.newest(platform.ledger, declared.name))
    store = store_at_destination(destination_of(platform, declared), platform.home.reports)
    name = f"{declared.name}/benchmarks.html"
    write_file(store, name, page.encode())
    return store.location(name)


def page_of(ledger: Ledger, database: str, begin: str | None = None) -> str:
    """The page of the newest run of a database, or of the one whose id begins so. Raises ``ReportNotFound``."""
    runs = record.newest(ledger, database, _KINDS, limit=200)
    chosen = next((one for one in runs if begin is None or one.id.startswith(begin)), None)
    if chosen is None:
        what = f"benchmarks of database {database!r}"
        raise ReportNotFound(what=what, hint=f"Measure them: dbplatform bench run {database}.")
    return render(chosen, [one for one in runs if one.kind == "run"][:30])


def state(report: Report) -> str:
    """``failed`` where something is worse or misses its target, ``errored`` where something could not be run."""
    if report.bad:
        return "failed"
    return "errored" if report.errored else "passed"


def headline(report: Report) -> str:
    """The run as one sentence without its full stop."""
    if report.kind == "pool":
        best = max(report.pool, key=lambda one: one["per_second"])
        return f"Most gets through with {best['mode']}: {best['per_second']:,.0f} calls a second"
    parts = []
    for verdict in ("worse", "better", "no difference", "too noisy", "too few samples", "not comparable"):
        many = sum(one.comparison is not None and one.comparison.verdict == verdict for one in report.results)
        if many:
            parts.append(f"{many} {verdict}" if verdict != "too noisy" else f"{many} too noisy to say")
    missed = sum(one.target == "missed" for one in report.results)
    parts += [f"{counted(missed, 'target')} missed"] if missed else []
    parts += [f"{len(report.errored)} could not be run"] if report.errored else []
    total = counted(len(report.results), "benchmark")
    return f"{total}: {', '.join(parts)}" if parts else f"{total} measured"


def _trend(one: Result, past: Sequence[Report]) -> Chart | None:
    """The median over the runs until now."""
    values = [next((old.ms for old in run.results if old.name == one.name), None) for run in past]
    return charts.trend([*values, one.ms], "Median in ms")
