"""The watch in Dagster: one sensor for all databases, alerts shown as checks, and what changed only once."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from dbplatform_tests.installation import Installation, small_project
from dbplatform_tests.receiver import Receiver

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
  quality:
    - table: item
      checks:
        - not_null: name
  thresholds:
    - {metric: invalid_indexes, critical: "> 0", for: 0s, keep_firing_for: 0s}
  notify: [{url_env: ALERT_URL}]
"""
_MIGRATION = "create table item (id int primary key, name text);"

#: What the daemon does at a tick: evaluate the sensor with the cursor of the tick before, keep its events.
_TICK = """
import json, sys
import dagster as dg
from dbplatform.definitions import definitions
from dbplatform.orchestration.instance import prepare_instance
from dbplatform.operations.platform import Platform
from dbplatform.declaration.project import Project
from pathlib import Path

prepare_instance(Platform(Project.at(Path.cwd())))
repository = definitions().get_repository_def()
sensor = repository.get_sensor_def("dbplatform_watch")
cursor, ticks = sys.argv[1] or None, []
with dg.DagsterInstance.get() as instance:
    for _ in range(int(sys.argv[2])):
        context = dg.build_sensor_context(instance=instance, cursor=cursor, repository_def=repository)
        result = sensor.evaluate_tick(context)
        cursor = result.cursor
        for event in result.asset_events:
            instance.report_runless_asset_event(event)
        checks = {
            key.name: instance.event_log_storage.get_latest_asset_check_execution_by_key([key]).get(key)
            for key in repository.asset_graph.asset_check_keys if key.asset_key.path[-1] == "alerts"
        }
        ticks.append({
            "sensor": sensor.name, "cursor": result.cursor, "words": result.skip_message,
            "events": [
                [type(e).__name__, e.check_name if hasattr(e, "check_name") else "/".join(e.asset_key.path)]
                for e in result.asset_events
            ],
            "checks": {name: found.status.value for name, found in checks.items() if found is not None},
        })
print(json.dumps(ticks))
"""


@dataclass
class Daemon:
    """Ticks one after the other, in a process of its own each time, as after a restart."""

    installation: Installation
    receiver: Receiver
    cursor: str = ""
    seen: list[Any] = field(default_factory=list)

    def tick(self) -> Any:
        [only] = self.ticks(1)
        return only

    def ticks(self, count: int) -> Any:
        result = subprocess.run(
            [sys.executable, "-c", _TICK, self.cursor, str(count)],
            cwd=self.installation.folder,
            env={
                **self.installation.environment,
                "ALERT_URL": self.receiver.url,
                "DBPLATFORM_PROJECT": str(self.installation.folder),
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        found = json.loads(result.stdout.splitlines()[-1])
        self.cursor = found[-1]["cursor"]
        return found


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    receiver = Receiver()
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as installation:
        yield Daemon(installation, receiver)
    receiver.close()


def test_alerts_are_checks_in_dagster_and_one_message_each_whatever_restarts_in_between(daemon: Daemon) -> None:
    shop = daemon.installation
    nothing = daemon.tick()
    assert nothing["words"] == "0 databases watched, 0 alerts firing; shop: The database shop is not there yet"
    assert (nothing["events"], nothing["checks"]) == ([], {})

    result = shop.json("run", "shop")
    assert {"shop/metrics", "shop/health", "shop/alerts"} <= result["steps"].keys()
    assert result["steps"]["shop/health"]["score"] > 0
    quiet = daemon.tick()
    assert quiet["sensor"] == "dbplatform_watch"
    assert {
        name: quiet["checks"][name] for name in ("invalid_indexes", "reachable", "runs", "quality", "channels")
    } == {
        "invalid_indexes": "SUCCEEDED",
        "reachable": "SUCCEEDED",
        "runs": "SUCCEEDED",
        "quality": "SUCCEEDED",
        "channels": "SUCCEEDED",
    }
    assert ["AssetMaterialization", "shop/health"] in quiet["events"]

    with shop.connect("shop") as connection:
        connection.execute("insert into item values (1, null), (2, 'pen')")
        connection.execute("alter table item add column twice int default 1")
        with pytest.raises(Exception, match="could not create unique index"):
            connection.execute("create unique index concurrently item_twice on item (twice)")
    broken, shown = daemon.ticks(2)
    assert broken["checks"]["invalid_indexes"] == "FAILED"
    assert ["AssetCheckEvaluation", "invalid_indexes"] in broken["events"]
    assert daemon.receiver.titles == ["[critical] shop: invalid_indexes"]
    assert ["AssetCheckEvaluation", "invalid_indexes"] not in shown["events"], "it is shown already"
    assert len(daemon.receiver.taken) == 1

    # A green run with a failed check, and a run that failed.
    shop.here("check", "shop", exit_code=1)
    failed = shop.folder / "defs" / "shop" / "migrations" / "V2__wrong.sql"
    failed.write_text("select 1 / 0;")
    shop.json("run", "shop", "--job", "shop_migrate", exit_code=3)
    worse = daemon.tick()
    assert (worse["checks"]["quality"], worse["checks"]["runs"]) == ("FAILED", "FAILED")
    assert daemon.receiver.titles[1:] == ["[critical] shop: 2 alerts: item not_null_name, run of shop_migrate"]
    assert "division by zero" in daemon.receiver.taken[-1]["message"]
    assert "3 alerts firing" in worse["words"]

    with shop.connect("shop") as connection:
        connection.execute("drop index item_twice")
        connection.execute("delete from item where name is null")
    shop.here("check", "shop")
    failed.write_text("alter table item add column note text;")
    shop.json("run", "shop", "--job", "shop_migrate")
    well, _ = daemon.ticks(2)
    assert {well["checks"][name] for name in ("invalid_indexes", "quality", "runs")} == {"SUCCEEDED"}
    over, drifted = daemon.receiver.titles[2:]
    assert over == "[resolved] shop: 3 alerts: invalid_indexes, item not_null_name, run of shop_migrate"
    # The column that was added by hand, as the check of the green run said.
    assert drifted == "[warning] shop: drift of migrations"
    assert "Differences between the schema and what its migrations make: 1" in daemon.receiver.taken[3]["message"]
