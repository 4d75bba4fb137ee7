"""The report for programs: JSON and JUnit XML, whatever the data holds."""

from __future__ import annotations

import json
from datetime import timedelta
from xml.etree import ElementTree

from hypothesis import given, settings
from hypothesis import strategies as st

from dbplatform.reporting.causes import Cause, Fact, RunAt
from dbplatform.reporting.document import document, render_document
from dbplatform.reporting.evidence import Point, RunEvidence
from dbplatform.reporting.junit import render_junit
from dbplatform_tests.web.report_samples import START, check_evidence, run_evidence, table_evidence

_TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(
    ["]]>", "<script>alert(1)</script>", "\x00\x01\x1f", "\ufffe\uffff", "a\r\nb", "&lt;", '"', "{{ 7*7 }}"]
)


def _run() -> RunEvidence:
    flights = [
        check_evidence(name="bad", status="failed", failed_rows=7, message="7 rows\nare wrong", owner="team:data",
                       sql="select 1", samples=({"id": 1, "name": None},)),
        check_evidence(name="late", status="failed", severity="warn", failed_rows=None, message="too old"),
        check_evidence(name="broken", status="errored", failed_rows=None, message="no such column"),
        check_evidence(name="known", status="accepted", failed_rows=2, message="2 rows, until Monday"),
        check_evidence(name="fine"),
    ]  # fmt: skip
    return run_evidence([table_evidence("public.flights", flights), table_evidence("public.planes", [])])


def test_junit_has_a_suite_per_table_and_tells_failures_errors_and_what_is_accepted_apart() -> None:
    root = ElementTree.fromstring(render_junit(_run()))
    flights, planes = root.findall("testsuite")
    assert root.tag == "testsuites"
    counts = {name: flights.get(name) for name in ("name", "tests", "failures", "errors", "skipped")}
    assert counts == {
        "name": "flights.public.flights", "tests": "5", "failures": "2", "errors": "1", "skipped": "1",
    }  # fmt: skip
    assert (planes.get("tests"), root.get("tests"), root.get("failures")) == ("0", "5", "2")
    found = {
        case.get("name"): [(child.tag, child.get("type"), child.get("message")) for child in case]
        for case in flights.findall("testcase")
    }
    assert found == {
        "bad": [("failure", "error", "7 rows are wrong")],
        "late": [("failure", "warn", "too old")],
        "broken": [("error", "errored", "no such column")],
        "known": [("skipped", None, "accepted: 2 rows, until Monday")],
        "fine": [],
    }
    text = flights.findtext("testcase/failure") or ""
    for part in ("7 rows\nare wrong", "Failing for 1 run", "Owner: team:data", "id=1, name=null", "SQL:\nselect 1"):
        assert part in text


def test_junit_has_no_element_or_attribute_that_the_form_does_not_know() -> None:
    known = {
        "testsuites": {"name", "time", "tests", "failures", "errors", "skipped"},
        "testsuite": {"name", "tests", "failures", "errors", "skipped", "time", "timestamp", "id"},
        "testcase": {"name", "classname"},
        "failure": {"type", "message"},
        "error": {"type", "message"},
        "skipped": {"message"},
    }
    for element in ElementTree.fromstring(render_junit(_run())).iter():
        assert set(element.attrib) <= known[element.tag]


@given(name=_TEXT, message=_TEXT)
@settings(max_examples=60, deadline=None)
def test_no_text_of_the_data_breaks_a_form(name: str, message: str) -> None:
    made = check_evidence(
        name=name, status="failed", failed_rows=3, message=message, sql=message, owner=name,
        samples=({name: message, "x": float("inf") if not name else 1},)[:1] if name else (),
    )  # fmt: skip
    run = run_evidence([table_evidence(name, [made])], database=message)
    root = ElementTree.fromstring(render_junit(run))
    assert [element.tag for element in root.iter()] == ["testsuites", "testsuite", "testcase", "failure"]
    found = json.loads(render_document(run))
    assert found["tables"][0]["checks"][0]["message"] == message


def test_document_extends_that_of_check_and_holds_no_value_that_json_does_not_know() -> None:
    history = (
        Point(run_id="r1", started_at=START - timedelta(days=1), status="passed", failed_rows=None, value=float("nan")),
        Point(run_id="r2", started_at=START, status="failed", failed_rows=None, value=float("inf")),
    )
    check = check_evidence(name="a", status="failed", failed_rows=None, value=float("inf"), history=history)
    found = document(run_evidence([table_evidence("t", [check, check_evidence(name="b")])]))
    json.dumps(found, allow_nan=False)
    [a, _] = found["tables"][0]["checks"]
    assert {"name", "type", "column", "status", "severity", "failed_rows", "value", "message"} <= set(a)
    assert (a["change"], a["since"]["run_id"], a["last_good"]["run_id"]) == ("new", "r2", "r1")
    assert [point["value"] for point in a["history"]] == [None, None]
    assert found["tables"][0]["score"] == 0.5


def test_document_tells_what_happened_before() -> None:
    good, bad = (RunAt(run_id=name, started_at=START, finished_at=START) for name in ("good", "bad"))
    fact = Fact(kind="setting", words="work_mem: 4MB → 64MB")
    made = run_evidence([])
    cause = Cause(last_good=good, first=bad, checks=(("t", "a"),), facts=(fact,), not_known=None)
    run = RunEvidence(
        **{name: getattr(made, name) for name in made.__dataclass_fields__ if name != "causes"}, causes=(cause,)
    )
    [told] = document(run)["causes"]
    assert (told["last_good"]["run_id"], told["first_bad"]["run_id"]) == ("good", "bad")
    assert told["facts"] == [{"kind": "setting", "words": "work_mem: 4MB → 64MB", "at": None, "run_id": None}]
