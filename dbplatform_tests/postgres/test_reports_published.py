"""A run's report from beginning to end: what surrounds it is kept, it goes where it is declared, and old ones go."""

from __future__ import annotations

import json
import os
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from xml.etree import ElementTree

import psycopg
import pytest
from sqlalchemy import update

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation, QualityRun, Report
from dbplatform.ledger.reports import QualitySurroundings
from dbplatform.operations import checks, schema
from dbplatform.operations.platform import Platform
from dbplatform.operations.reviews import review
from dbplatform.postgres.connection import Target
from dbplatform.reporting import retention
from dbplatform.reporting.errors import ReportNotFound, ReportNotWritten
from dbplatform.reporting.publish import Published, publish
from dbplatform.reporting.store import list_reports, read_report, report_at, report_of
from dbplatform.storage import s3
from dbplatform.storage.folder import FolderPlace
from dbplatform.storage.place import StorageFailed
from dbplatform_tests.s3 import Fate, s3_server, unreliable

DAY = timedelta(days=1)
_SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  owners: ["team:shop"]
  connection: {{url_env: SHOP_URL}}
  migrations: {{}}
  quality:
    - table: item
      checks:
        - not_null: name
  reports: {reports}
"""


class Shop:
    """A project with one database; its declaration can be written anew."""

    def __init__(self, folder: Path, database: Target) -> None:
        self.folder, self.database = folder, database
        self.platforms: list[Platform] = []
        (folder / "defs" / "shop" / "migrations").mkdir(parents=True)
        self.declare("{}")

    def declare(self, reports: str) -> None:
        (self.folder / "defs" / "shop" / "defs.yaml").write_text(_SHOP.format(reports=reports))

    @property
    def platform(self) -> Platform:
        """A new one, as after a restart."""
        self.platforms.append(Platform(Project.at(self.folder)))
        return self.platforms[-1]

    def check(self, run_id: str = "") -> Published:
        platform, run_id = self.platform, run_id or str(uuid.uuid4())
        declared = platform.declarations.get("shop")
        checks.check_table(platform, declared, declared.database.quality[0].table, run_id=run_id)
        return publish(platform, declared, run_id, in_dagster=False)

    def sql(self, *statements: str) -> None:
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture
def shop(database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    made = Shop(tmp_path / "project", database)
    made.sql("create table item (name text)", "insert into item values ('pen')")
    yield made
    for platform in made.platforms:
        platform.ledger.engine.dispose()


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    with s3_server() as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        s3.client().create_bucket(Bucket="reports")
        yield "reports"


def age(ledger: Ledger, run_id: str, days: float) -> None:
    """Let a run have begun so many days ago."""
    with ledger.session() as session:
        began = datetime.now(UTC) - days * DAY
        session.execute(update(QualityRun).where(QualityRun.run_id == run_id).values(started_at=began))


def test_the_report_tells_the_migration_and_the_setting_before_a_failure(shop: Shop, ledger: Ledger) -> None:
    shop.check("good")
    (shop.folder / "defs/shop/migrations/V7__more_items.sql").write_text("insert into item values (null);")
    platform = shop.platform
    schema.apply(platform, platform.declarations.get("shop"))
    shop.sql("do $$begin execute format('alter database %I set work_mem to %L', current_database(), '13MB'); end$$")
    found = shop.check("bad")
    [cause] = found.run.causes
    words = [(fact.kind, fact.words) for fact in cause.facts]
    assert [kind for kind, _ in words] == ["migration", "setting", "rows"]
    assert words[0][1].startswith("7 more items (V7__more_items.sql), by ")
    assert words[1][1].endswith("13MB (database)")
    assert words[2][1] == "public.item: 1 → 2 rows (+1)"
    page = Path(found.location).read_text()
    assert "V7__more_items.sql" in page
    assert json.loads(Path(found.forms["json"]).read_text())["causes"][0]["first_bad"]["run_id"] == "bad"
    assert ElementTree.parse(found.forms["junit"]).getroot().get("failures") == "1"


def test_a_check_without_an_owner_is_asked_of_the_owners_of_the_database(shop: Shop) -> None:
    shop.sql("insert into item values (null)")
    page = Path(shop.check().location).read_text()
    assert "Who is asked" in page
    assert "<bdi>team:shop</bdi>" in page
    assert "no owner declared" not in page


def test_no_setting_that_may_hold_a_secret_is_kept(shop: Shop, ledger: Ledger) -> None:
    shop.check("one")
    with ledger.session() as session:
        kept = session.get_one(QualitySurroundings, "one")
        assert kept.settings["server_version"]["value"]
        assert not {name for name in kept.settings if "command" in name or "conninfo" in name or name == "port"}


def test_a_migration_is_new_once_and_the_first_run_of_all_claims_none(shop: Shop, ledger: Ledger) -> None:
    (shop.folder / "defs/shop/migrations/V1__one.sql").write_text("create table one ();")
    platform = shop.platform
    schema.apply(platform, platform.declarations.get("shop"))
    shop.check("first")
    (shop.folder / "defs/shop/migrations/V2__two.sql").write_text("create table two ();")
    platform = shop.platform
    schema.apply(platform, platform.declarations.get("shop"))
    shop.check("second")
    shop.check("third")
    shop.check("second")  # opened and closed again
    with ledger.session() as session:
        seen = {run: session.get_one(QualitySurroundings, run).migrations for run in ("first", "second", "third")}
    assert {run: [one["version"] for one in rows] for run, rows in seen.items()} == {
        "first": [],
        "second": ["2"],
        "third": [],
    }


def test_a_report_goes_to_the_declared_folder_and_its_old_files_are_forgotten(shop: Shop, ledger: Ledger) -> None:
    before = shop.check("one")
    shop.declare("{destination: kept/reports}")
    found = shop.check("one")
    assert found.location.startswith(str(shop.folder / "kept" / "reports" / "shop"))
    assert not any(Path(path).exists() for path in before.forms.values())
    entry = report_of(ledger, "shop")
    assert entry.destination == str(shop.folder / "kept" / "reports")
    for form, path in found.forms.items():
        assert read_report(Path("/nowhere"), entry, form) == Path(path).read_bytes()


@pytest.mark.drill
def test_reports_are_kept_in_a_bucket_read_back_from_it_and_removed_from_it(
    shop: Shop, ledger: Ledger, bucket: str, tmp_path: Path
) -> None:
    shop.declare(f"{{destination: 's3://{bucket}/data', retain: 30 days}}")
    shop.check("old")
    age(ledger, "old", 40)
    found = shop.check("new")
    assert found.location.startswith(f"s3://{bucket}/data/shop/")
    assert found.problem is None
    entry = report_of(ledger, "shop")
    assert b"<!doctype html>" in (read_report(tmp_path, entry) or b"")
    assert [one.run_id for one in list_reports(ledger)] == ["new"]
    store = s3.S3Store.below(f"s3://{bucket}/data")
    assert sorted(file.name for file in store.files()) == sorted(entry.name(form) for form in entry.forms)


@pytest.mark.drill
@pytest.mark.parametrize("fate", ["refused", "cut", "stalled"])
def test_a_bucket_that_takes_no_report_leaves_the_verdict_and_no_report_that_is_not_there(
    shop: Shop, ledger: Ledger, bucket: str, monkeypatch: pytest.MonkeyPatch, fate: Fate
) -> None:
    shop.declare(f"{{destination: 's3://{bucket}/data'}}")
    shop.check("before")
    shop.sql("insert into item values (null)")
    monkeypatch.setattr(s3, "TRIES", 1)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 0.3)
    well, over = os.environ["AWS_ENDPOINT_URL_S3"], threading.Event()
    with unreliable(well, lambda method, path: fate if method == "PUT" else "answered", over=over) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy)
        try:
            with pytest.raises(ReportNotWritten):
                shop.check("in trouble")
        finally:
            over.set()
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", well)
    assert [one.run_id for one in list_reports(ledger)] == ["before"]
    with ledger.session() as session:
        run = session.get(QualityRun, "in trouble")
        assert run is not None
        assert run.verdict == "failed", "what was found is in the ledger"
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 60)
    platform = shop.platform
    again = publish(platform, platform.declarations.get("shop"), "in trouble", in_dagster=False)
    assert again.run.verdict == "failed"
    assert [one.run_id for one in list_reports(ledger)] == ["in trouble", "before"]
    assert b"<!doctype html>" in (read_report(Path("/nowhere"), report_of(ledger, "shop")) or b"")


def test_retention_keeps_the_newest_and_whatever_failed_and_nobody_read(shop: Shop, ledger: Ledger) -> None:
    shop.declare("{retain: 30 days}")
    pen, none = "update item set name = 'pen'", "update item set name = null"
    for run_id, change, days in (("passed", pen, 50), ("read", none, 49), ("unread", none, 48)):
        shop.sql(change)
        shop.check(run_id)
        age(ledger, run_id, days)
    review(ledger, "read", by="ada", comment="known", way="command line")
    shop.sql(pen)
    newest = shop.check("newest but old")  # removes nothing of itself
    age(ledger, "newest but old", 40)
    assert [one.run_id for one in list_reports(ledger)] == ["newest but old", "unread"]
    platform = shop.platform
    declared = platform.declarations.get("shop")
    assert retention.plan_prune(platform, declared, now=datetime.now(UTC)) == []
    review(ledger, "unread", by="ada", comment="known", way="command line")
    [due] = retention.plan_prune(platform, declared, now=datetime.now(UTC))
    assert due.run_id == "unread"
    files = Path(newest.location).parent
    assert len(list(files.iterdir())) == 6
    assert retention.apply_prune(platform, declared, [due], now=datetime.now(UTC)) == [due]
    assert len(list(files.iterdir())) == 3
    assert retention.apply_prune(platform, declared, [due], now=datetime.now(UTC)) == []
    with ledger.session() as session:
        assert session.get(QualityRun, "unread") is not None  # its results stay


def test_a_report_that_is_no_longer_due_when_it_is_its_turn_is_not_removed(shop: Shop, ledger: Ledger) -> None:
    shop.declare("{retain: 30 days}")
    shop.check("old")
    shop.check("new")
    age(ledger, "old", 40)
    platform = shop.platform
    declared = platform.declarations.get("shop")
    planned = retention.plan_prune(platform, declared, now=datetime.now(UTC))
    age(ledger, "old", 0)
    assert retention.apply_prune(platform, declared, planned, now=datetime.now(UTC)) == []
    assert len(list_reports(ledger)) == 2


def test_a_removal_that_was_interrupted_is_not_listed_and_goes_on_at_the_next_run(
    shop: Shop, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.declare("{retain: 30 days}")
    old = shop.check("old")
    age(ledger, "old", 40)

    def refuse(place: FolderPlace, name: str) -> None:
        raise StorageFailed(location=name, reason="it is read-only", hint="Correct its rights.")

    with monkeypatch.context() as fault:
        fault.setattr(FolderPlace, "remove", refuse)
        found = shop.check("new")
    assert found.problem is not None
    assert "read-only" in found.problem
    assert [one.run_id for one in list_reports(ledger)] == ["new"]
    assert Path(old.location).exists()
    shop.check("newer")
    assert not Path(old.location).exists()
    with ledger.session() as session:
        assert session.get(Report, "old") is None
        kinds = session.query(Operation.status).filter(Operation.kind == "prune reports").all()
    assert sorted(status for (status,) in kinds) == ["failed", "succeeded"]


def test_a_server_that_goes_away_after_the_checks_does_not_cost_the_report(
    shop: Shop, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    platform = shop.platform
    declared = platform.declarations.get("shop")
    checks.check_table(platform, declared, declared.database.quality[0].table, run_id="run")
    monkeypatch.setenv("SHOP_URL", "postgresql://127.0.0.1:1/gone")
    found = publish(platform, declared, "run", in_dagster=False)
    assert found.run.verdict == "passed"
    assert Path(found.location).exists()
    with ledger.session() as session:
        assert session.get(QualitySurroundings, "run") is None


def test_only_recorded_forms_are_found_by_their_location(shop: Shop, ledger: Ledger) -> None:
    shop.check("run")
    entry = report_of(ledger, "shop")
    assert [report_at(ledger, entry.name(form))[1] for form in ("html", "json", "junit")] == ["html", "json", "junit"]
    with ledger.session() as session:
        session.execute(update(Report).values(json_sha256=None))
    with pytest.raises(ReportNotFound):
        report_at(ledger, entry.name("json"))
