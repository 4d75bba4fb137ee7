"""The report as one HTML file that needs nothing else: no script, no request, pictures drawn in place.

Everything from the ledger is escaped; data may hold markup. The page forbids itself to load anything, so even a
mistake here could not send data away.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from dbplatform.reporting import charts, comparison, evidence, words
from dbplatform.reporting.errors import NotAWebAddress
from dbplatform.reporting.evidence import HISTORY_RUNS, CheckEvidence, RunEvidence


def render_report(
    run: RunEvidence,
    *,
    dagster_run_url: str | None = None,
    review_url: str | None = None,
    owners: Sequence[str] = (),
) -> str:
    """The whole page. The same evidence gives the same text, byte for byte. Raises ``NotAWebAddress``.

    ``owners`` are those of the database: who is asked about a check that declares nobody.
    """
    for url in (dagster_run_url, review_url):
        if url is not None and urlsplit(url).scheme not in ("http", "https"):
            raise NotAWebAddress(url=url, hint="Give one that begins with http:// or https://.")
    anchors = {
        (table.table, check.name): f"t{place}c{number}"
        for place, table in enumerate(run.tables, 1)
        for number, check in enumerate(table.checks, 1)
    }
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            run=run,
            headline=words.headline(run),
            difference=comparison.compare(run),
            anchors=anchors,
            bars=_bars(run),
            history_runs=HISTORY_RUNS,
            dagster_run_url=dagster_run_url,
            review_url=review_url,
            owners=_owners(run, ", ".join(owners) or None),
            causes={key: place for place, cause in enumerate(run.causes, 1) for key in cause.checks},
        )
    )


@cache
def environment() -> Environment:
    """The templates with the platform's words as filters; everything is escaped, an unknown name is an error."""
    made = Environment(
        loader=PackageLoader("dbplatform.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        number=words.number,
        duration=words.duration,
        measured=words.measured,
        utc=words.utc,
        value_text=words.value_text,
        change=comparison.change,
        since=comparison.since,
        notes=evidence.notes,
        coverage=evidence.coverage,
        masked=evidence.masked,
        check_trend=charts.check_trend,
        row_count_trend=charts.row_count_trend,
        row_count_range=charts.row_count_range,
        sample_columns=evidence.sample_columns,
        breakable=breakable,
    )
    made.tests.update(moved=comparison.moved)
    made.globals.update(counted=words.counted, percent=words.percent)
    return made


def breakable(name: str) -> Markup:
    """A name that a narrow column may break after ``_`` and ``.``, and that is still copied whole."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_.])", name))


def _owners(run: RunEvidence, others: str | None) -> list[tuple[str | None, list[CheckEvidence]]]:
    """The checks that need somebody, by their owner, the one with the most first; those of nobody come last.

    Those without an owner belong to the ``others``.
    """
    found: dict[str | None, list[CheckEvidence]] = {}
    for check in run.checks:
        if check.bad:
            found.setdefault(check.owner or others, []).append(check)
    return sorted(found.items(), key=lambda one: (one[0] is None, -len(one[1]), one[0] or ""))


def _bars(run: RunEvidence) -> list[tuple[CheckEvidence, float]]:
    """The checks with failing rows, most first, each with its length in percent of the longest."""
    found = sorted((check for check in run.checks if check.failed_rows), key=lambda check: -(check.failed_rows or 0))
    longest = max((check.failed_rows or 0 for check in found), default=1)
    return [(check, round(100 * (check.failed_rows or 0) / longest, 2)) for check in found]
