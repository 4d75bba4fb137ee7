"""Who has read a report: noted, added to, taken back by other results, asked for, and told when nobody has."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest

from dbplatform.cli.main import run
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import QualityResult
from dbplatform.operations import observations, reviews
from dbplatform.operations.platform import Platform
from dbplatform.operations.reviews import NoReview, NothingToReview, review
from dbplatform.orchestration.reviews import review_jobs
from dbplatform.reporting.errors import ReportNotFound
from dbplatform.reporting.store import AmbiguousRun, list_reports, report_of, report_that_begins, write_report
from dbplatform_tests.web.report_samples import START, Made, put_run

DAY = timedelta(days=1)
BAD = Made(name="a", status="failed", failed_rows=3)
_SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: flights
  connection: {url_env: FLIGHTS_URL}
  quality: [{table: public.flights, checks: [{not_null: a}]}]
  reports: {review_within: 2 days}
"""


def put(ledger: Ledger, folder: Path, run_id: str, check: Made = BAD, *, days: float = 0) -> None:
    put_run(ledger, run_id, [check], started_at=START - days * DAY)
    write_report(ledger, "flights", run_id, folder=folder)


@pytest.fixture
def project(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    file = tmp_path / "project" / "defs" / "flights" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_SHOP)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    return Project.at(tmp_path / "project")


def waits(ledger: Ledger) -> list[str]:
    return [entry.run_id for entry in list_reports(ledger, reviewed=False)]


def test_a_failing_report_waits_until_somebody_has_reviewed_it(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, tmp_path, "bad")
    put(ledger, tmp_path, "errored", Made(name="a", status="errored"), days=1)
    put(ledger, tmp_path, "fine", Made(name="a"), days=2)
    put(ledger, tmp_path, "accepted", Made(name="a", status="accepted", failed_rows=1), days=3)
    assert waits(ledger) == ["bad", "errored"]
    [made] = review(ledger, "bad", by=" Ada ", comment=" known \n", way="command line")
    assert (made.reviewer, made.comment, made.way, made.current) == ("Ada", "known", "command line", True)
    assert waits(ledger) == ["errored"]
    assert [entry.run_id for entry in list_reports(ledger, reviewed=True)] == ["bad"]
    assert [one.run_id for one in reviews.waiting(ledger, "flights")] == ["errored"]


def test_every_review_is_kept_in_its_order(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, tmp_path, "bad")
    for by, way in (("ada", "command line"), ("bob", "service"), ("cyd", "dagster")):
        review(ledger, "bad", by=by, comment="seen", way=way)  # type: ignore[arg-type]
    found = reviews.reviews_of(ledger, ["bad", "other"])
    assert [(one.reviewer, one.way) for one in found["bad"]] == [
        ("ada", "command line"), ("bob", "service"), ("cyd", "dagster"),
    ]  # fmt: skip
    assert "other" not in found


def test_a_report_with_other_results_waits_again_and_the_same_one_does_not(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, tmp_path, "bad")
    review(ledger, "bad", by="ada", comment="known", way="service")
    write_report(ledger, "flights", "bad", folder=tmp_path)
    assert waits(ledger) == []
    with ledger.session() as session:
        session.query(QualityResult).update({"failed_rows": 99})
    write_report(ledger, "flights", "bad", folder=tmp_path)
    assert waits(ledger) == ["bad"]
    assert [one.current for one in reviews.reviews_of(ledger, ["bad"])["bad"]] == [False]


def test_one_review_can_answer_for_all_older_failing_reports(ledger: Ledger, tmp_path: Path) -> None:
    for days in range(4):
        put(ledger, tmp_path, f"bad {days}", days=days)
    put_run(ledger, "elsewhere", [BAD], database="other", started_at=START - 9 * DAY)
    write_report(ledger, "other", "elsewhere", folder=tmp_path)
    planned = review(ledger, "bad 1", by="a", comment="c", way="service", and_earlier=True, dry_run=True)
    assert [one.run_id for one in planned] == ["bad 1", "bad 2", "bad 3"]
    assert len(waits(ledger)) == 5
    review(ledger, "bad 1", by="a", comment="c", way="service", and_earlier=True)
    assert waits(ledger) == ["bad 0", "elsewhere"]


def test_a_review_without_name_or_comment_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    put(ledger, tmp_path, "bad")
    for by, comment in (("", "c"), ("a", " \n"), ("a", "x" * 4001), ("x" * 201, "c"), ("\0", "c")):
        with pytest.raises(NoReview):
            review(ledger, "bad", by=by, comment=comment, way="service")
    with pytest.raises(NothingToReview):
        review(ledger, "unknown", by="a", comment="c", way="service")
    assert reviews.reviews_of(ledger, ["bad"]) == {}


def test_a_report_is_found_by_the_beginning_of_its_run(ledger: Ledger, tmp_path: Path) -> None:
    for run_id in ("abc1", "abc2", "abc", "x%"):
        put(ledger, tmp_path, run_id)
    assert report_that_begins(ledger, None, "abc1").run_id == "abc1"
    assert report_that_begins(ledger, None, "abc").run_id == "abc"
    assert report_that_begins(ledger, "flights", "x").run_id == "x%"
    with pytest.raises(AmbiguousRun, match="abc, abc1, abc2"):
        report_that_begins(ledger, None, "ab")
    for begin in ("", "%", "zzz"):
        with pytest.raises(ReportNotFound):
            report_that_begins(ledger, None, begin)


def test_a_review_that_is_late_is_an_alert_and_its_end_another_observation(
    project: Project, ledger: Ledger, tmp_path: Path
) -> None:
    declared = Platform(project).declarations.get("flights")
    put(ledger, tmp_path, "bad")
    waiting = reviews.waiting(ledger, "flights")
    [early] = observations.unreviewed(declared, waiting, now=START + DAY)
    [late] = observations.unreviewed(declared, waiting, now=START + 2 * DAY + timedelta(minutes=1))
    [none] = observations.unreviewed(declared, [], now=START + 9 * DAY)
    assert (early.severity, late.severity, none.severity) == (None, "warning", None)
    assert late.value == 1
    assert "waited longer than 2 days" in late.cause
    (project.root / "defs/flights/defs.yaml").write_text(_SHOP.partition("  reports")[0])
    undeclared = Platform(project).declarations.get("flights")
    assert observations.unreviewed(undeclared, waiting, now=START + 9 * DAY) == []


def test_a_review_is_noted_from_dagster_by_the_config_of_a_job(
    project: Project, ledger: Ledger, tmp_path: Path
) -> None:
    put(ledger, tmp_path, "0123456789")
    platform = Platform(project)
    [job] = review_jobs(platform, platform.declarations.get("flights"))
    config = {"run_id": "0123", "comment": "seen in Dagster", "by": "cyd"}
    assert job.name == "flights_review"
    with dg.DagsterInstance.ephemeral() as instance:
        result = job.execute_in_process(
            run_config={"ops": {"flights__review": {"config": config}}}, instance=instance, raise_on_error=False
        )
        wrong = job.execute_in_process(
            run_config={"ops": {"flights__review": {"config": {**config, "run_id": "9"}}}},
            instance=instance,
            raise_on_error=False,
        )
    platform.ledger.engine.dispose()
    assert result.success
    assert not wrong.success
    assert [
        (one.reviewer, one.comment, one.way) for one in reviews.reviews_of(ledger, ["0123456789"])["0123456789"]
    ] == [("cyd", "seen in Dagster", "dagster")]


def test_the_command_line_reviews_lists_shows_and_gives_every_form(
    project: Project, ledger: Ledger, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    put(ledger, tmp_path / "home" / "reports", "0123456789")

    def call(*arguments: str) -> tuple[int, bytes]:
        code = run(["-C", str(project.root), "report", *arguments])
        return code, capfdbinary.readouterr().out

    code, out = call("list", "--unreviewed", "--json")
    assert (code, [one["run_id"] for one in json.loads(out)["reports"]]) == (1, ["0123456789"])
    code, out = call("show", "flights")
    assert (code, b"nobody has reviewed it" in out) == (0, True)
    assert call("review", "0123", "--comment", "known", "--by", "Ada", "--dry-run")[0] == 0
    assert call("list", "--unreviewed")[0] == 1
    code, out = call("review", "0123", "--comment", "known", "--by", "Ada", "--json")
    assert (code, json.loads(out)["reviews"][0]["by"]) == (0, "Ada")
    assert call("list", "--unreviewed") == (0, b"every failing report was reviewed\n")
    code, out = call("show", "--run", "0123", "--json")
    assert (json.loads(out)["reviewed"], json.loads(out)["reviews"][0]["comment"]) == (True, "known")
    folder = tmp_path / "home" / "reports"
    entry = report_of(ledger, "flights")
    for form in ("html", "json", "junit"):
        assert call("show", "--run", "0123", "--format", form) == (0, (folder / entry.name(form)).read_bytes())
    (folder / entry.name("json")).write_text("{}")
    assert call("show", "--run", "0123", "--format", "json")[0] == 2
    assert call("prune", "flights", "--dry-run")[0] == 2  # nothing says how long reports are kept
