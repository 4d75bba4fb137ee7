"""The check ``runs_out`` and the retirement of partitions, as Dagster shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from dateutil.relativedelta import relativedelta
from psycopg import sql

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import partitions
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.partition_checks import NAME, partition_checks
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.retirement import retirement_assets
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation

SALE = Relation("public", "sale")
DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  partitioned_tables:
    - {table: sale, column: at, interval: 1 month, premake: 4, start: 6 months, retain: 3 months}
"""


@pytest.fixture
def platform(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Platform:
    """A declared database with a partitioned table that has no partition yet."""
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    with connect(database, work="test") as connection:
        connection.execute("create table sale (at timestamptz) partition by range (at)")
    return Platform(Project.at(tmp_path))


def checked(platform: Platform) -> dg.AssetCheckEvaluation:
    """What the check says, run alone."""
    checks = partition_checks(platform, platform.declarations.get("shop"))
    key = dg.AssetCheckKey(keys.partitions("shop", SALE), NAME)
    done = dg.materialize(
        checks, selection=dg.AssetSelection.checks(key), resources={"options": Options()}, raise_on_error=False
    )
    [evaluation] = done.get_asset_check_evaluations()
    return evaluation


def make_partition(database: Target, first: int, last: int) -> None:
    """One from the first to the last of these months, counted from this one."""
    month = datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    lower, upper = ((month + relativedelta(months=n)).isoformat() for n in (first, last))
    with connect(database, work="test") as connection:
        connection.execute(
            f"create table sale_{first + 100} partition of sale for values from ('{lower}') to ('{upper}')".encode()
        )


def test_a_table_whose_newest_bound_has_passed_is_an_error(platform: Platform, database: Target) -> None:
    make_partition(database, -2, 0)
    found = checked(platform)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert "find no partition and are refused" in (found.description or "")
    assert found.metadata["runs out in days"].value == 0


def test_less_than_half_of_what_is_kept_ready_is_a_warning(platform: Platform, database: Target) -> None:
    make_partition(database, 0, 2)
    found = checked(platform)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "run out in" in (found.description or "")


def test_a_gap_ahead_counts_as_the_end(platform: Platform, database: Target) -> None:
    make_partition(database, 0, 1)
    make_partition(database, 2, 12)
    assert not checked(platform).passed


def test_what_apply_makes_is_enough(platform: Platform) -> None:
    partitions.apply(platform, platform.declarations.get("shop"))
    assert checked(platform).passed


def test_a_check_that_cannot_run_has_not_passed(platform: Platform, database: Target) -> None:
    with connect(database, work="test") as connection:
        connection.execute("drop table sale; create table sale (at timestamptz)")
    found = checked(platform)
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert (found.description or "").startswith("Could not run: ")


def retired(platform: Platform, *, dry_run: bool = False) -> dict[str, object]:
    """The metadata of a run of the retirement."""
    assets = retirement_assets(platform, platform.declarations.get("shop"))
    done = dg.materialize(assets, resources={"options": Options(dry_run=dry_run)})
    [event] = done.get_asset_materialization_events()
    return {key: value.value for key, value in event.materialization.metadata.items()}


def test_the_retirement_drops_empty_partitions_and_a_dry_run_does_not(platform: Platform, database: Target) -> None:
    partitions.apply(platform, platform.declarations.get("shop"))
    planned = retired(platform, dry_run=True)
    assert (planned["dry run"], planned["dropped"]) == (True, 0)
    made = retired(platform)
    assert (made["dropped"], made["detached"], made["waiting for the archive"]) == (3, 0, 0)
    assert "partitions" not in retired(platform)


def test_what_cannot_be_retired_fails_the_step_with_the_reason(platform: Platform, database: Target) -> None:
    declared = platform.declarations.get("shop")
    oldest = partitions.apply(platform, declared).tables[0].created[0].relation.name
    with connect(database, work="test") as connection:
        view = sql.SQL("create view needed as table {}").format(sql.Identifier(oldest))
        connection.execute(view)
    assets = retirement_assets(platform, declared)
    done = dg.materialize(assets, resources={"options": Options()}, raise_on_error=False)
    assert not done.success
    [failed] = [event for event in done.all_events if event.is_step_failure]
    assert "view needed depends on" in str(failed.step_failure_data.user_failure_data)
