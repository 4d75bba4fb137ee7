"""What the whole platform asks of a database in which nothing happens: counted, so that it cannot creep up."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import func, select
from websockets.sync.client import ClientConnection, connect

from dbplatform.declaration.project import Project
from dbplatform.operations.deadman import DeadMansSwitch
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.location import definitions_of
from dbplatform.postgres.connection import Target
from dbplatform.web.app import create_app
from dbplatform.web.location import location_of, pushed_of
from dbplatform.web.push.announcements import CHANNEL
from dbplatform.web.push.service import Push
from dbplatform_tests.counted import counting
from dbplatform_tests.typed import Type
from dbplatform_tests.web.conftest import serving

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
  migrations: {}
  partitioned_tables: [{table: public.sale, column: at, interval: 1 month, premake: 2, start: 2 months}]
  archives: [{name: old_sales, table: public.sale, column: at, older_than: 12 months}]
  backups: {logical: {}, drill: {}}
  quality: [{table: public.item, checks: [{not_null: name}, {row_count: {min: 1}}]}]
  thresholds: [{metric: cache_hit_ratio, warn: "< 0.95"}]
  live: [{table: public.item}]
  maintenance: {daily: "0 2 * * *"}
"""
_MIGRATION = """
create extension pg_stat_statements;
create table item (id int primary key, name text not null);
create table sale (at timestamptz not null, item int) partition by range (at);
"""
#: As docs/how-to/watch-and-alert.md says: of a minute, and of the one in each day that reads sizes, too.
_EACH_MINUTE, _ONCE_A_DAY = 8, 10


@dataclass
class Running:
    """The sensors, the status service with somebody who watches, and the dead man's switch over one project."""

    repository: dg.RepositoryDefinition
    instance: dg.DagsterInstance
    platform: Platform
    watcher: ClientConnection
    minutes: int = 0

    def minute(self) -> None:
        """All that happens within one, and until the service has told of it."""
        self.minutes += 1
        switch = DeadMansSwitch(self.platform, self.platform.declarations.databases)
        for sensor in self.repository.sensor_defs:
            context = dg.build_sensor_context(self.instance, repository_def=self.repository)
            sensor.evaluate_tick(context)
        for _ in range(6):
            switch.look(datetime.now(UTC))
        end = f"minute{self.minutes}"
        with self.platform.ledger.session() as session:
            session.execute(select(func.pg_notify(CHANNEL, f"{end} shop")))
        while end not in json.loads(self.watcher.recv(timeout=60)).get("what", ()):
            pass


@contextmanager
def running(project: Path) -> Iterator[Running]:
    platform = Platform(Project.at(project))
    push = Push(pushed_of(platform))
    app = create_app(platform.ledger, platform.home.reports, location=location_of(platform), push=push)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        serving(app) as address,
        connect(address.replace("http:", "ws:") + "/ws") as watcher,
    ):
        watcher.send(json.dumps({"type": "subscribe", "databases": ["shop"]}))
        trouble = json.loads(watcher.recv(timeout=60))["databases"]["shop"]["trouble"]
        while trouble is not None:
            trouble = json.loads(watcher.recv(timeout=60)).get("trouble", trouble)
        repository = definitions_of(platform.project).get_repository_def()
        yield Running(repository, instance, platform, watcher)
    platform.ledger.engine.dispose()


@pytest.fixture
def shop(declare_shop: Callable[[str], Type], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    typed = declare_shop(_DECLARATION)
    migrations = tmp_path / "defs" / "shop" / "migrations"
    migrations.mkdir()
    (migrations / "V1__first.sql").write_text(_MIGRATION)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    for words in ("migrate", "partition", "live"):
        assert typed(words, "apply", "shop").code == 0
    return tmp_path


def test_a_minute_of_the_whole_platform_asks_an_idle_database_eight_things_and_ten_once_a_day(
    shop: Path, database: Target
) -> None:
    with running(shop) as platform, counting(database.url) as counter:
        once_a_day = []
        for _ in range(3):
            counter.reset()
            platform.minute()
            calls = counter.calls()
            assert any(text.startswith("/* dbplatform metrics */") for text in calls), "the database was measured"
            once_a_day.append(any("freeze_max_age" in text for text in calls))
            assert sum(calls.values()) <= (_ONCE_A_DAY if once_a_day[-1] else _EACH_MINUTE), calls
        assert once_a_day[0]
        assert not once_a_day[2]
