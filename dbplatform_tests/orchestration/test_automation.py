"""Work that follows a change of data: once for each change, by whoever made it, and not in a freeze."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import pytest

from dbplatform.declaration.loading import Declared
from dbplatform.declaration.project import Project
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import schedules
from dbplatform.orchestration.automation import automated, automation_sensors
from dbplatform.orchestration.component import ManagedDatabase
from dbplatform.orchestration.steps import data_version
from dbplatform_tests.orchestration.turned_clock import Clock

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: {name}
  connection: {{url_env: SHOP_URL}}
  migrations: {{}}
  partitioned_tables: [{{table: sale, column: at, interval: 1 month}}]
  quality: [{{table: sale, checks: [{{not_null: at}}]}}, {{table: item, checks: [{{not_null: id}}]}}]
  maintenance: {{window: "19:00-05:00"}}
  freeze: [{{from: 2027-05-04, to: 2027-05-06, reason: "the great sale"}}]
"""
_ASSETS = (
    "partitions/sale", "seed", "archive/old", "tables/sale", "tables/item", "quality_report", "maintenance/analyze",
)  # fmt: skip


@dataclass
class World:
    """Databases whose assets change data when the test says so, and the sensor that looks at them."""

    instance: dg.DagsterInstance
    databases: list[Declared]
    clock: Clock
    changing: set[str] = field(default_factory=set)
    words: str | None = None
    _cursor: str | None = None

    def __post_init__(self) -> None:
        self.assets = [asset for one in self.databases for asset in automated(one, self._stubs(one.name))]
        [self.sensor] = automation_sensors(self.databases)
        self.repository = dg.Definitions(assets=self.assets, sensors=[self.sensor]).get_repository_def()

    def _stubs(self, database: str) -> list[dg.AssetsDefinition]:
        def stub(name: str) -> dg.AssetsDefinition:
            @dg.asset(key=[database, *name.split("/")])
            def made(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
                return dg.MaterializeResult(data_version=data_version(context, changed=name in self.changing))

            return made

        return [stub(name) for name in _ASSETS]

    def run(self, *names: str, database: str = "shop", changing: bool = True) -> None:
        """One run that makes these assets."""
        self.changing = set(names) if changing else set()
        keys = [dg.AssetKey([database, *name.split("/")]) for name in names]
        assert dg.materialize(self.assets, selection=keys, instance=self.instance).success

    def look(self) -> dict[str, set[str]]:
        """A tick: what begins, by its database. It is run at once."""
        context = dg.build_sensor_context(self.instance, cursor=self._cursor, repository_def=self.repository)
        found = self.sensor.evaluate_tick(context)
        self._cursor, self.words = found.cursor, found.skip_message
        begun = {}
        for request in found.run_requests or ():
            names = {"/".join(key.path[1:]) for key in request.asset_selection or ()}
            begun[request.tags["dbplatform/database"]] = names
            self.run(*names, database=request.tags["dbplatform/database"])
        return begun


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    for name in ("shop", "store"):
        folder = tmp_path / "defs" / name / "migrations"
        folder.mkdir(parents=True)
        (folder.parent / "defs.yaml").write_text(_DECLARATION.format(name=name))
    databases = list(Platform(Project.at(tmp_path)).declarations.databases)
    clock = Clock(datetime(2027, 5, 1, tzinfo=UTC))
    with (
        dg.DagsterInstance.ephemeral() as instance,
        mock.patch.object(schedules, "current_time", clock.read),
    ):
        made = World(instance, databases, clock)
        assert made.look() == {}, "nothing follows from being loaded"
        yield made


def test_analyze_follows_a_seed_that_loaded_rows_once(world: World) -> None:
    world.run("seed")
    assert world.look() == {"shop": {"maintenance/analyze"}}
    assert world.look() == {}
    assert world.words == "Nothing begins"


def test_nothing_follows_a_seed_with_nothing_to_load(world: World) -> None:
    world.run("seed")
    world.look()
    world.run("seed", changing=False)
    assert world.look() == {}


def test_several_changes_make_one_run_and_an_archive_counts_as_one(world: World) -> None:
    world.run("seed")
    world.run("archive/old")
    assert world.look() == {"shop": {"maintenance/analyze"}}
    assert world.look() == {}


def test_what_the_same_run_did_behind_the_change_is_not_done_again(world: World) -> None:
    world.run("seed", "maintenance/analyze")
    world.run("partitions/sale", "tables/sale", "quality_report")
    assert world.look() == {}


def test_checks_with_their_report_follow_partitions_in_one_run(world: World) -> None:
    world.run("partitions/sale")
    assert world.look() == {"shop": {"tables/sale", "quality_report"}}
    assert world.look() == {}


def test_each_database_has_a_run_of_its_own(world: World) -> None:
    world.run("seed")
    world.run("seed", database="store")
    assert world.look() == {"shop": {"maintenance/analyze"}, "store": {"maintenance/analyze"}}


def test_a_freeze_holds_back_what_changes_the_database_and_says_so(world: World) -> None:
    world.clock.now = datetime(2027, 5, 4, 12, tzinfo=UTC)
    world.run("seed")
    world.run("partitions/sale")
    assert world.look() == {"shop": {"tables/sale", "quality_report"}}, "checks go on"
    assert world.look() == {}
    assert world.words is not None
    assert "shop is frozen until 2027-05-06 00:00 UTC: the great sale" in world.words
    world.clock.now = datetime(2027, 5, 6, 20, tzinfo=UTC)
    assert world.look() == {"shop": {"maintenance/analyze"}}


def test_maintenance_waits_for_its_window(world: World) -> None:
    world.clock.now = datetime(2027, 5, 10, 12, tzinfo=UTC)
    world.run("seed")
    assert world.look() == {}
    assert "shop has maintenance from 19:00-05:00 UTC alone" in str(world.words)
    world.clock.now = datetime(2027, 5, 10, 20, tzinfo=UTC)
    assert world.look() == {"shop": {"maintenance/analyze"}}


def test_a_run_that_goes_on_is_waited_for(world: World) -> None:
    job = dg.Definitions(
        assets=world.assets, jobs=[dg.define_asset_job("seeds", [dg.AssetKey(["shop", "seed"])])]
    ).get_job_def("seeds")
    world.run("seed")
    going_on = world.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, asset_selection={dg.AssetKey(["shop", "seed"])}
    )
    assert world.look() == {}
    world.instance.report_run_canceled(going_on)
    assert world.look() == {"shop": {"maintenance/analyze"}}


def test_the_assets_of_a_declared_database_have_their_conditions(world: World, tmp_path: Path) -> None:
    platform = Platform(Project.at(tmp_path))
    definitions = ManagedDatabase(platform, platform.declarations.get("shop")).build_defs()
    graph = definitions.get_repository_def().asset_graph
    found = {"/".join(key.path[1:]) for key in graph.materializable_asset_keys if graph.get(key).automation_condition}
    assert {"tables/sale", "quality_report"} <= found
    assert "tables/item" not in found
