"""Reports as files and records: whole or not at all, found again, never mixed up."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import func, select

from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Report
from dbplatform.reporting.errors import ReportNotFound, ReportNotWritten, RunNotFinished
from dbplatform.reporting.store import list_reports, read_report, report_at, report_of, write_report
from dbplatform_tests.web.report_samples import START, Made, put_run

DAY = timedelta(days=1)


def _records(ledger: Ledger) -> int:
    with ledger.session() as session:
        return session.scalar(select(func.count()).select_from(Report)) or 0


def _files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_report_is_named_by_database_start_and_run_and_recorded_with_its_hash(ledger: Ledger, tmp_path: Path) -> None:
    run_id = "0a1b2c3d-4e5f-6071-8293-a4b5c6d7e8f9"
    put_run(ledger, run_id, [Made(name="a", status="failed", failed_rows=1)])
    written = write_report(ledger, "flights", run_id, folder=tmp_path)
    assert written.location == "flights/2026-11-21T02-00-00Z-0a1b2c3d.html"
    assert written.path == tmp_path / written.location
    content = written.path.read_bytes()
    assert written.sha256 == hashlib.sha256(content).hexdigest()
    assert (written.bytes, written.verdict) == (len(content), "failed")
    entry = report_of(ledger, "flights")
    assert (entry.run_id, entry.location, entry.sha256) == (run_id, written.location, written.sha256)
    assert (entry.verdict, entry.tables, entry.checks, entry.failed, entry.errored) == ("failed", 1, 1, 1, 0)
    assert read_report(tmp_path, entry) == content


def test_writing_again_replaces_file_and_record_and_later_runs_change_nothing(ledger: Ledger, tmp_path: Path) -> None:
    put_run(ledger, "first", [Made(name="a")])
    first = write_report(ledger, "flights", "first", folder=tmp_path)
    put_run(ledger, "second", [Made(name="a", status="failed", failed_rows=4)], started_at=START + DAY)
    again = write_report(ledger, "flights", "first", folder=tmp_path)
    assert again == first
    assert _records(ledger) == 1
    assert _files(tmp_path) == [first.path.stem + end for end in (".html", ".json", ".junit.xml")]


def test_runs_that_look_alike_get_files_of_their_own(ledger: Ledger, tmp_path: Path) -> None:
    put_run(ledger, "cli-2026-one", [Made(name="a")])
    put_run(ledger, "cli-2026-two", [Made(name="a", status="failed", failed_rows=2)])
    one = write_report(ledger, "flights", "cli-2026-one", folder=tmp_path)
    two = write_report(ledger, "flights", "cli-2026-two", folder=tmp_path)
    assert one.location != two.location
    assert read_report(tmp_path, report_of(ledger, "flights", "cli-2026-one")) == one.path.read_bytes()
    assert write_report(ledger, "flights", "cli-2026-two", folder=tmp_path).location == two.location


@pytest.mark.parametrize("name", ["../../outside", "..", ".hidden", "a/b", "C:\\x", "日本", ""])
def test_no_name_of_a_database_leads_out_of_the_folder(ledger: Ledger, tmp_path: Path, name: str) -> None:
    put_run(ledger, "../..", [Made(name="a")], database=name)
    folder = tmp_path / "deep" / "reports"
    written = write_report(ledger, name, "../..", folder=folder)
    assert written.path.resolve().parent.parent == folder.resolve()
    assert not any(part.startswith(".") for part in Path(written.location).parts)
    assert read_report(folder, *report_at(ledger, written.location)) == written.path.read_bytes()


def test_an_unfinished_run_leaves_no_file_and_no_record(ledger: Ledger, tmp_path: Path) -> None:
    put_run(ledger, "going on", [Made(name="a")], seconds=None)
    with pytest.raises(RunNotFinished):
        write_report(ledger, "flights", "going on", folder=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert _records(ledger) == 0


def test_a_folder_that_cannot_be_made_is_told_and_nothing_is_recorded(ledger: Ledger, tmp_path: Path) -> None:
    put_run(ledger, "run", [Made(name="a")])
    (tmp_path / "flights").write_text("a file where the folder should be")
    with pytest.raises(ReportNotWritten, match=r"Check that .* can be written"):
        write_report(ledger, "flights", "run", folder=tmp_path)
    assert _records(ledger) == 0


def test_a_disk_that_loses_bytes_leaves_the_earlier_report_and_no_debris(
    ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_run(ledger, "run", [Made(name="a")])
    before = write_report(ledger, "flights", "run", folder=tmp_path)
    content = before.path.read_bytes()
    with monkeypatch.context() as fault:
        fault.setattr(Path, "read_bytes", lambda _: content[:-1])
        with pytest.raises(ReportNotWritten, match="does not read back"):
            write_report(ledger, "flights", "run", folder=tmp_path)
    assert _files(tmp_path) == [before.path.stem + end for end in (".html", ".json", ".junit.xml")]
    assert read_report(tmp_path, report_of(ledger, "flights", "run")) == content


def test_reports_are_listed_newest_run_first_and_by_database(ledger: Ledger, tmp_path: Path) -> None:
    for number, database in enumerate(("flights", "other", "flights")):
        put_run(ledger, f"r{number}", [Made(name="a")], database=database, started_at=START + number * DAY)
    for run_id, database in (("r2", "flights"), ("r0", "flights"), ("r1", "other")):
        write_report(ledger, database, run_id, folder=tmp_path)
    assert [entry.run_id for entry in list_reports(ledger)] == ["r2", "r1", "r0"]
    assert [entry.run_id for entry in list_reports(ledger, "flights")] == ["r2", "r0"]
    assert [entry.run_id for entry in list_reports(ledger, limit=1)] == ["r2"]
    assert report_of(ledger, "flights").run_id == "r2"
    assert report_of(ledger, None, "r1").database == "other"


def test_a_report_that_is_not_there_is_told(ledger: Ledger, tmp_path: Path) -> None:
    put_run(ledger, "r0", [Made(name="a")])
    with pytest.raises(ReportNotFound, match="database 'flights'"):
        report_of(ledger, "flights")
    write_report(ledger, "flights", "r0", folder=tmp_path)
    with pytest.raises(ReportNotFound, match="run r0"):
        report_of(ledger, "other", "r0")
    with pytest.raises(ReportNotFound):
        report_at(ledger, "flights/other.html")


def test_a_file_that_changed_is_no_longer_the_report(ledger: Ledger, tmp_path: Path) -> None:
    put_run(ledger, "r0", [Made(name="a")])
    written = write_report(ledger, "flights", "r0", folder=tmp_path)
    entry = report_of(ledger, "flights")
    written.path.write_bytes(written.path.read_bytes() + b" ")
    assert read_report(tmp_path, entry) is None
    written.path.unlink()
    assert read_report(tmp_path, entry) is None
