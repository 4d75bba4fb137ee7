"""Migrations that destroy data, archives and the removal of backups wait for a young proof, whichever way they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from dbplatform.declaration.loading import Declared
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.assets import writing_assets
from dbplatform.orchestration.resources import Options
from dbplatform.orchestration.safety import backup_assets
from dbplatform.orchestration.steps import failed_step
from dbplatform.postgres.connection import Target
from dbplatform_tests.typed import Type, typist

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test, scratch_url_env: SHOP_URL}
  migrations: {directory: migrations, allow_destructive: true}
  backups: {retain: {daily: 1, weekly: 0, monthly: 0}, drill: {max_age: 3 days}}
  archives:
    - {name: old_sales, table: sale, column: at, older_than: 30 days}
"""
_SALES = """\
create table sale (id int primary key, at timestamptz not null);
insert into sale select g, now() - g * interval '1 day' + interval '1 hour' from generate_series(1, 40) g;
create table item (id int);
"""

#: What a way to do something ended with: a refusal in words, or None.
Way = Callable[[str], str | None]


@pytest.fixture
def shop(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose database has two backups, rows that are due, and a migration that drops a table."""
    folder = tmp_path / "defs" / "shop" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "defs.yaml").write_text(_DECLARATION)
    (folder / "V1__sales.sql").write_text(_SALES)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def type_(shop: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    typed = typist(shop, capsys)
    for words in (("migrate", "apply"), ("backup", "create"), ("backup", "create")):
        assert typed(*words, "shop").code == 0
    (shop / "defs" / "shop" / "migrations" / "V2__drop.sql").write_text("drop table item;")
    return typed


def typed_way(type_: Type) -> Way:
    """By the command line."""

    def done(what: str) -> str | None:
        typed = type_(*what.split(), "shop", *(("--yes",) if what == "backup prune" else ()))
        return None if typed.code == 0 else typed.out + typed.err

    return done


def dagster_way(platform: Platform, declared: Declared) -> Way:
    """By the assets, each run alone."""
    assets = [*writing_assets(platform, declared), *backup_assets(platform, declared, deps=[])]
    by_verb = {
        "migrate apply": keys.migrations("shop"),
        "archive apply": keys.archive("shop", "old_sales"),
        "backup prune": keys.backup_retention("shop"),
    }

    def done(what: str) -> str | None:
        selection = dg.AssetSelection.assets(by_verb[what])
        result = dg.materialize(assets, selection=selection, resources={"options": Options()}, raise_on_error=False)
        if failed := failed_step(result.all_events):
            return failed.reason
        [event] = result.asset_materializations_for_node(by_verb[what].to_python_identifier())
        refusal: Any = event.metadata.get("nothing removed because")
        return refusal.value if refusal is not None else None

    return done


def counted(database: Target, ledger: Ledger) -> tuple[int, bool, int]:
    """Rows of the table, whether the other table is there, and backups that are listed."""
    with psycopg.connect(database.url) as connection:
        [(sales, item)] = connection.execute("select count(*), to_regclass('item') is not null from sale").fetchall()
    with psycopg.connect(ledger.target.url) as connection:
        [(backups,)] = connection.execute("select count(*) from ledger.backup where status = 'complete'").fetchall()
    return sales, item, backups


@pytest.mark.parametrize("way", ["command line", "dagster"])
def test_nothing_is_destroyed_without_a_young_proof_and_all_of_it_with_one(
    shop: Path, type_: Type, database: Target, ledger: Ledger, way: str
) -> None:
    platform = Platform(Project.at(shop))
    do = typed_way(type_) if way == "command line" else dagster_way(platform, platform.declarations.get("shop"))
    verbs = {
        "migrate apply": ("no restore has proven a backup yet", "older than 3 days"),
        "archive apply": ("dbplatform drill shop", "dbplatform drill shop"),
        "backup prune": ("No backup of shop is proven", "older than 3 days"),
    }
    before = counted(database, ledger)
    assert before == (40, True, 2)
    for verb, (unproven, _) in verbs.items():
        refused = do(verb)
        assert refused is not None, verb
        assert unproven in refused
    assert type_("drill", "shop").code == 0
    with psycopg.connect(ledger.target.url) as connection:
        connection.execute("update ledger.backup set proven_at = proven_at - interval '4 days'")
    for verb, (_, old) in verbs.items():
        refused = do(verb)
        assert refused is not None, verb
        assert old in refused
    assert counted(database, ledger) == before

    assert type_("drill", "shop").code == 0
    assert [do(verb) for verb in ("archive apply", "backup prune", "migrate apply")] == [None, None, None]
    assert counted(database, ledger) == (30, False, 1)
