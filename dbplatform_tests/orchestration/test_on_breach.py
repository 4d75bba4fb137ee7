"""From an alert that fires to the run that it begins: asked for until Dagster has it, and then its end is kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from dbplatform.alerting.evaluate import evaluate
from dbplatform.alerting.record import history
from dbplatform.alerting.states import Observation
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import healing

_SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
  backups: {}
  on_breach: {dead_tuple_ratio: maintenance/vacuum, backup_age_s: backup, index_bloat_ratio: maintenance/reindex}
  freeze: [{from: 2027-02-01, to: 2027-02-03, reason: "the great sale"}]
"""
_START = datetime(2027, 1, 1, tzinfo=UTC)


@pytest.fixture
def platform(tmp_path: Path, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Platform:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_SHOP)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    return Platform(Project.at(tmp_path))


@dg.asset(key=["shop", "maintenance", "vacuum"])
def vacuum() -> None: ...


@dg.asset(key=["shop", "backup"])
def backup() -> None: ...


def fire(platform: Platform, metric: str, now: datetime) -> None:
    seen = [Observation(key=metric, metric=metric, severity="warning", cause=f"{metric} is bad")]
    evaluate(platform.ledger, "shop", seen, [], now=now)


def look(platform: Platform, instance: dg.DagsterInstance, now: datetime) -> tuple[list[dg.RunRequest], list[str]]:
    repository = dg.Definitions(assets=[vacuum, backup]).get_repository_def()
    return healing.begin(platform, platform.declarations.databases, instance, repository, now)


def run(instance: dg.DagsterInstance, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
    """As the daemon would."""
    return dg.materialize([vacuum, backup], instance=instance, selection=request.asset_selection, tags=request.tags)


def began(platform: Platform) -> list[tuple[str, str | None]]:
    episodes = history(platform.ledger, "shop", since=_START, now=_START + timedelta(days=90))
    return [(one.work, one.outcome) for episode in episodes for one in episode.began]


def test_the_run_of_an_alert_is_asked_for_until_it_is_there_and_its_end_is_kept(platform: Platform) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        assert look(platform, instance, _START) == ([], [])
        fire(platform, "dead_tuple_ratio", _START)
        [asked], _ = look(platform, instance, _START)
        assert asked.asset_selection == [dg.AssetKey(["shop", "maintenance", "vacuum"])]
        assert asked.tags["dbplatform/database"] == "shop"
        # The daemon was killed before it had the run: it is asked for again, by the same key.
        [again], _ = look(platform, instance, _START + timedelta(minutes=1))
        assert again.run_key == asked.run_key
        made = run(instance, again)
        assert look(platform, instance, _START + timedelta(minutes=2)) == ([], [])
        assert began(platform) == [("maintenance/vacuum", "succeeded")]
        [told] = history(platform.ledger, "shop", since=_START, now=_START + timedelta(days=1))
        assert told.began[0].run_id == made.run_id


def test_a_freeze_holds_work_back_with_a_word_but_for_backups(platform: Platform) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        frozen = datetime(2027, 2, 1, 12, tzinfo=UTC)
        fire(platform, "dead_tuple_ratio", frozen)
        fire(platform, "backup_age_s", frozen)
        [asked], [held] = look(platform, instance, frozen)
        assert asked.asset_selection == [dg.AssetKey(["shop", "backup"])]
        assert held == (
            "maintenance/vacuum of shop, wanted by dead_tuple_ratio, waits: "
            "shop is frozen until 2027-02-03 00:00 UTC: the great sale"
        )
        run(instance, asked)
        [later], held_later = look(platform, instance, datetime(2027, 2, 3, tzinfo=UTC))
        assert (later.asset_selection, held_later) == ([dg.AssetKey(["shop", "maintenance", "vacuum"])], [])


def test_work_that_the_graph_does_not_have_is_told(platform: Platform) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        fire(platform, "index_bloat_ratio", _START)
        assert look(platform, instance, _START) == ([], ["shop: there is no maintenance/reindex to begin"])
