"""A service with something on every one of its pages: what axe, the keyboard and a pair of eyes are let loose on."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from sqlalchemy import select

from dbplatform.alerting.silences import silence
from dbplatform.benchmarking import record as benchmarks
from dbplatform.declaration.project import Project
from dbplatform.ledger.capacity import CapacityDay
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.models import Operation
from dbplatform.ledger.monitoring import MetricHistory
from dbplatform.operations.platform import Platform
from dbplatform.operations.reviews import review
from dbplatform.reporting.capacity import publish_capacity
from dbplatform.reporting.maintenance import publish_maintenance
from dbplatform.reporting.store import write_report
from dbplatform.web.app import create_app
from dbplatform.web.location import Location
from dbplatform.web.push.service import Push, Pushed
from dbplatform_tests.postgres.test_maintenance_report import BEGIN, MONTH, backup, drill, item, maintained
from dbplatform_tests.unit.test_reporting_benchmarks import EVERYTHING
from dbplatform_tests.web.conftest import serving
from dbplatform_tests.web.recorded_samples import put_alert, recorded_database
from dbplatform_tests.web.report_samples import rich_history

SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  backups: {destination: backups}
  capacity: {disk: 100GB}
"""
_NAMES = ("flights", "shop", "quiet")
_GB = 1 << 30


@dataclass(frozen=True)
class Site:
    """A running service, with the address of each kind of page by its name."""

    url: str
    pages: dict[str, str]


@contextmanager
def site(server_url: str, ledger_template: str, folder: Path) -> Iterator[Site]:
    """Three databases: one whose checks fail, one with something of everything, one of which nothing is known."""
    (folder / "defs" / "shop").mkdir(parents=True)
    (folder / "defs" / "shop" / "defs.yaml").write_text(SHOP)
    name = f"site_{uuid.uuid4().hex[:8]}"
    url = make_conninfo(server_url, dbname=name)
    with psycopg.connect(server_url, autocommit=True) as server, pytest.MonkeyPatch.context() as environment:
        made = sql.SQL("create database {} template {}")
        server.execute(made.format(sql.Identifier(name), sql.Identifier(ledger_template)))
        # The ledger stands for the managed database, too: only sizes are read of it.
        environment.setenv("SHOP_URL", url)
        environment.setenv("DBPLATFORM_LEDGER_URL", url)
        environment.setenv("DBPLATFORM_HOME", str(folder / "home"))
        platform = Platform(Project.at(folder))
        pages = _filled(platform)
        push = Push(Pushed(names=_NAMES, ledger=platform.ledger.target))
        app = create_app(
            platform.ledger,
            platform.home.reports,
            dagster_url="http://127.0.0.1:3000",
            location=Location(names=_NAMES),
            push=push,
        )
        try:
            with serving(app) as address:
                yield Site(address, pages)
        finally:
            platform.ledger.engine.dispose()
            server.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


def _filled(platform: Platform) -> dict[str, str]:
    """Put everything into the ledger and the folder of reports; the pages that there are."""
    ledger, now = platform.ledger, datetime.now(UTC)
    failing = rich_history(ledger)
    report = write_report(
        ledger, "flights", failing, folder=platform.home.reports, dagster_run_url="http://127.0.0.1:3000/runs/a1b2"
    )
    recorded_database(ledger)
    write_report(ledger, "shop", "check-of-shop", folder=platform.home.reports)
    review(ledger, "check-of-shop", by="Ada", comment="The rows were loaded twice.\nMended by hand.", way="service")
    put_alert(ledger, "shop", "locks", state="pending")
    put_alert(ledger, "shop", "longest_transaction_s")
    silence(
        ledger, database="shop", metric="longest_transaction_s", length=timedelta(hours=2), reason="a new disk",
        by="ada", now=now,
    )  # fmt: skip
    _keep(ledger, Operation(database="flights", kind="backup", run_id="3e4f", actor="dagster", status="running"))
    benchmarks.keep(ledger, EVERYTHING)
    return {
        "index": "/",
        "dashboard": "/dashboard",
        "dashboard of a database": "/dashboard/shop",
        "dashboard of a database that nobody measured": "/dashboard/quiet",
        "reports": "/reports/",
        "reports of a database": "/reports/flights/?verdict=errored",
        "no reports": "/reports/?verdict=passed&reviewed=yes",
        "report": f"/reports/{report.location}",
        "review": f"/reviews/{failing}",
        "a second review": "/reviews/check-of-shop",
        "month": f"/reports/{_month(platform)}",
        "quarter": f"/reports/{_quarter(platform)}",
        "benchmarks": "/benchmarks/shop/",
        "runbooks": "/runbooks",
        "login": "/login?next=/dashboard",
        "not found": "/nowhere",
    }


def _month(platform: Platform) -> str:
    """The report of a month in which something happened; where it lies."""
    ledger = platform.ledger
    maintained(
        ledger, 4, item("reindex", "public.item_name", before={"bytes": 9 << 20}, after={"bytes": 4 << 20}),
        item("repack", "public.item", "left", words="the load was too high"),
    )  # fmt: skip
    _keep(ledger, backup(5), backup(26, status="failed", proven=False), drill(5))
    for day in range(28):
        values = {"database_bytes": 1e9 + day * 3e7, "cache_hit_ratio": 0.99 - day / 1_000}
        measured = {name: [value, value, value, 1] for name, value in values.items()}
        _keep(ledger, MetricHistory(database="shop", step_s=3600, at=BEGIN + timedelta(days=day), measured=measured))
    declared = platform.declarations.get("shop")
    return publish_maintenance(platform, declared, month=MONTH).entry.location


def _quarter(platform: Platform) -> str:
    """The report of a quarter with sixty days in which the disk filled; where it lies."""
    declared = platform.declarations.get("shop")
    publish_capacity(platform, declared)
    with platform.ledger.session() as session:
        today = session.scalars(select(CapacityDay)).one()
        for ago in range(1, 61):
            at, used = today.at - timedelta(days=ago), (60 - ago // 2) * _GB
            measured = {**today.measured, "disk": [used, 100 * _GB]}
            session.add(CapacityDay(database="shop", day=at.date(), at=at, measured=measured))
    return publish_capacity(platform, declared).entry.location


def _keep(ledger: Ledger, *rows: Any) -> None:
    with ledger.session() as session:
        for row in rows:
            session.add(row)
            session.flush()
