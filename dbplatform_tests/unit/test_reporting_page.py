"""The page and its pictures from evidence made in memory."""

from __future__ import annotations

from datetime import timedelta
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dbplatform.reporting.charts import check_trend, row_count_trend
from dbplatform.reporting.comparison import change, compare, since
from dbplatform.reporting.errors import NotAWebAddress
from dbplatform.reporting.evidence import BandPoint, Point, RowCount
from dbplatform.reporting.page import render_report
from dbplatform_tests.web.report_samples import START, check_evidence, run_evidence, table_evidence

_VOID = {"meta", "link", "br", "col", "wbr"}
_ELEMENTS = """
    html head meta title link style body svg symbol use path circle rect main header section footer nav p h1 h2 h3 h4
    ol ul li dl dt dd div span b i bdi a br wbr code pre details summary figure figcaption table thead tbody tr th td
    colgroup col
"""


class _Page(HTMLParser):
    """Demands that every element is known and closed in order, and collects attributes that could act."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.names: set[str] = set()
        self.acting: list[tuple[str, str | None]] = []
        self.words = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.add(tag)
        self.acting += [(k, v) for k, v in attrs if k.startswith("on") or k in ("src", "href", "srcset", "action")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data


_TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=40) | st.sampled_from(
    [
        "<script>alert(1)</script>",
        '"><img src=x onerror=alert(1)>',
        "</style></pre></code>",
        "{{ 7*7 }}",
        "&amp;",
        "]]>",
    ]
)
_JSON = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | _TEXT | st.lists(_TEXT, max_size=2)


@given(name=_TEXT, message=_TEXT, rows=st.lists(st.dictionaries(_TEXT, _JSON, max_size=4), max_size=3))
@settings(max_examples=60, deadline=None)
def test_no_text_of_the_data_becomes_markup(name: str, message: str, rows: list[dict[str, object]]) -> None:
    made = check_evidence(
        name=name, type=message, column=name, status="failed", owner=message, message=message, sql=message,
        failed_rows=9, kept_rows=len(rows), samples=tuple(rows), tolerance=name,
    )  # fmt: skip
    page = _Page(render_report(run_evidence([table_evidence(name, [made])], database=name)))
    assert page.open == []
    assert page.names <= set(_ELEMENTS.split())
    assert all(v and v.startswith(("#", "data:image/svg+xml,%3Csvg")) for _, v in page.acting)
    assert message.strip() in page.words.replace("\r\n", "\n") or "\r" in message


def test_the_same_evidence_gives_the_same_page() -> None:
    run = run_evidence([table_evidence("public.t", [check_evidence(name="a")])])
    assert render_report(run) == render_report(run)


def test_checks_without_an_owner_are_asked_of_those_of_the_database() -> None:
    checks = [
        check_evidence(name="a", status="failed", failed_rows=1, owner="team:fleet"),
        check_evidence(name="b", status="failed", failed_rows=1, owner=None),
        check_evidence(name="c", status="errored", failed_rows=None, owner=None),
    ]
    run = run_evidence([table_evidence("public.t", checks)])
    page = render_report(run, owners=["team:data", "dba@example.com"])
    assert '<bdi>team:data, dba@example.com</bdi> <span class="num muted">(2)' in page
    assert "<bdi>team:fleet</bdi>" in page
    assert "no owner declared" not in page
    assert "no owner declared" in render_report(run)


@pytest.mark.parametrize("url", ["javascript:alert(1)", "data:text/html,x", "//host/path", "runs/1", ""])
def test_only_a_web_address_becomes_a_link(url: str) -> None:
    with pytest.raises(NotAWebAddress):
        render_report(run_evidence([]), dagster_run_url=url)


def test_page_without_a_dagster_run_has_no_link_to_one() -> None:
    assert "Dagster" not in render_report(run_evidence([]))
    assert 'href="https://d.example/runs/1"' in render_report(
        run_evidence([]), dagster_run_url="https://d.example/runs/1"
    )


def _points(*outcomes: tuple[str, int | None, float | None]) -> tuple[Point, ...]:
    return tuple(
        Point(run_id=str(n), started_at=START + timedelta(days=n), status=status, failed_rows=rows, value=value)
        for n, (status, rows, value) in enumerate(outcomes)
    )


def test_trend_of_failed_rows_draws_columns_from_zero_and_marks_unknown_runs() -> None:
    history = _points(("failed", 50, None), ("errored", None, None), ("passed", 0, None), ("failed", 100, None))
    drawn = check_trend(check_evidence(name="a", history=history))
    assert drawn is not None
    assert drawn.bars == "M1 24v-11h4v11zM19 24v-22h4v22z"
    assert drawn.gaps.startswith("M7 ")
    assert drawn.zeros == "M13 23h4"
    assert drawn.label == "Failed rows over the last 4 runs: from 0 to 100, now 100"


def test_trend_of_a_measured_value_is_a_line_broken_where_it_is_unknown() -> None:
    history = _points(
        ("passed", None, 1.0), ("passed", None, 2.0), ("errored", None, None), ("passed", None, float("nan")),
        ("passed", None, 3.0),
    )  # fmt: skip
    drawn = check_trend(check_evidence(name="a", history=history))
    assert drawn is not None
    assert drawn.line.count("M") == 2
    assert drawn.last == (116.0, 4.0)
    assert "nan" not in drawn.line
    assert drawn.label.endswith("from 1 to 3, now 3")


def test_a_value_that_is_judged_by_its_past_is_drawn_over_what_was_expected() -> None:
    def point(day: int, value: float | None, low: float | None, high: float | None) -> BandPoint:
        return BandPoint(at=START + timedelta(days=day), value=value, low=low, high=high)

    band = (
        point(0, 5.0, None, None), point(1, 5.0, 0.0, 10.0), point(2, None, 0.0, 10.0), point(3, 20.0, 0.0, 10.0),
        point(4, 4.0, None, 10.0), point(5, float("nan"), 0.0, None),
    )  # fmt: skip
    drawn = check_trend(check_evidence(name="a", type="anomaly", band=band))
    assert drawn is not None
    assert drawn.label == (
        "Measured value, the last 6: from 4 to 20, now unknown, expected at least 0; 1 of them not as expected"
    )
    assert drawn.outside == ((71.2, 4.0),)
    assert drawn.band.count("M") == 1
    assert drawn.line.count("M") == 2
    assert drawn.last is None
    page = render_report(run_evidence([table_evidence("t", [check_evidence(name="a", type="anomaly", band=band)])]))
    assert '<path class="expected"' in page
    assert page.count('<path class="out"') == 1


def test_a_first_run_has_no_trend() -> None:
    assert check_trend(check_evidence(name="a", history=_points(("failed", 1, None)))) is None
    assert (
        check_trend(check_evidence(name="a", history=_points(("errored", None, None), ("errored", None, None)))) is None
    )
    assert row_count_trend(table_evidence("t", [])) is None


def test_row_counts_that_never_change_are_a_level_line() -> None:
    counts = tuple(RowCount(started_at=START, rows=rows) for rows in (4, 4, None, 4))
    drawn = row_count_trend(table_evidence("t", [], row_counts=counts))
    assert drawn is not None
    assert drawn.label == "Rows over the last 4 runs: from 4 to 4, now 4"
    assert drawn.last == (236.0, 22.0)


def test_comparison_sorts_new_fixed_and_still_failing() -> None:
    bad, good, broken = ("failed", 5, None), ("passed", 0, None), ("errored", None, None)
    checks = [
        check_evidence(name="new", status="failed", history=_points(good, bad)),
        check_evidence(name="first", status="errored", history=_points(broken)),
        check_evidence(name="fixed", status="passed", history=_points(bad, good)),
        check_evidence(name="recovered", status="passed", history=_points(broken, good)),
        check_evidence(name="still", status="failed", failed_rows=9, history=_points(good, bad, ("failed", 9, None))),
        check_evidence(name="worse", status="errored", failed_rows=None, history=_points(bad, broken)),
        check_evidence(name="fine", status="passed", history=_points(good, good)),
        check_evidence(name="answered for", status="accepted", history=_points(bad, ("accepted", 5, None))),
    ]
    found = compare(run_evidence([table_evidence("t", checks)]))
    assert [check.name for check in found.new] == ["new", "first"]
    assert [check.name for check in found.fixed] == ["fixed", "recovered"]
    assert [check.name for check in found.still] == ["still", "worse"]
    assert [change(check) for check in found.still] == ["+4 rows", "was failed, now errored"]
    assert since(found.still[0]) == "for 2 runs, since 2026-11-22 02:00:00 UTC (run 1)"


def test_a_failure_older_than_the_history_says_so() -> None:
    history = _points(*[("failed", 5, None)] * 20)
    assert since(check_evidence(name="old", status="failed", history=history)) == (
        "for 20 runs or more, since 2026-11-21 02:00:00 UTC (run 0) or earlier"
    )
