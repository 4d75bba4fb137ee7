"""What destroys data waits for a backup that a restore has proven."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.typed import Type, typist

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test, scratch_url_env: SHOP_URL}
  migrations: {directory: migrations, allow_destructive: true}
  backups: {}
"""


@pytest.fixture
def migrations(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a database with backups; its first migration makes a table of ten rows."""
    folder = tmp_path / "defs" / "shop" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "defs.yaml").write_text(_DECLARATION)
    (folder / "V1__item.sql").write_text("create table item as select g as id from generate_series(1, 10) g;")
    (folder / "U1__item.sql").write_text("drop table item;")
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def type_(migrations: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    typed = typist(migrations.parents[2], capsys)
    assert typed("migrate", "apply", "shop").code == 0
    return typed


def rows(database: Target) -> int | None:
    with psycopg.connect(database.url) as connection:
        if connection.execute("select to_regclass('item')").fetchone() == (None,):
            return None
        return connection.execute("select count(*) from item").fetchone()[0]  # type: ignore[index,no-any-return]


@pytest.mark.parametrize(
    ("statement", "what"),
    [
        ("truncate item;", "truncate"),
        ("drop table item;", "drop table"),
        ("alter table item alter id type bigint;", "alter column type"),
    ],
)
def test_a_migration_that_destroys_data_waits_for_a_proof(
    type_: Type, migrations: Path, database: Target, statement: str, what: str
) -> None:
    (migrations / "V2__risky.sql").write_text(statement)
    refused = type_("migrate", "apply", "shop")
    assert refused.code == 3
    assert f"V2__risky.sql destroys data of shop ({what}), and no restore has proven a backup yet" in refused.err
    assert "dbplatform drill shop" in refused.err
    assert rows(database) == 10

    assert type_("backup", "create", "shop").code == 0
    assert type_("migrate", "apply", "shop").code == 3
    assert type_("drill", "shop").code == 0
    assert type_("migrate", "apply", "shop").code == 0


def test_an_undo_waits_for_it_too_and_an_old_proof_is_none(type_: Type, database: Target, ledger: Ledger) -> None:
    assert type_("backup", "create", "shop").code == 0
    assert type_("drill", "shop").code == 0
    with psycopg.connect(ledger.target.url) as connection:
        connection.execute("update ledger.backup set proven_at = proven_at - interval '9 days'")
    refused = type_("migrate", "undo", "shop", "--yes")
    assert refused.code == 3
    assert "the newest proof of a backup is older than 8 days" in refused.err
    assert rows(database) == 10
    assert type_("drill", "shop").code == 0
    assert type_("migrate", "undo", "shop", "--yes").code == 0
    assert rows(database) is None


def test_what_destroys_nothing_needs_no_proof(type_: Type, migrations: Path, database: Target) -> None:
    (migrations / "V2__more.sql").write_text("alter table item add name varchar(10); create index on item (id);")
    assert type_("migrate", "apply", "shop").code == 0
    (migrations / "V3__wider.sql").write_text("alter table item alter name type varchar(20);")
    assert type_("migrate", "apply", "shop").code == 0
    assert rows(database) == 10


def test_a_callback_that_destroys_data_waits_for_it_too(type_: Type, migrations: Path, database: Target) -> None:
    (migrations / "V2__more.sql").write_text("alter table item add name varchar(10);")
    for callback in ("afterMigrate__tidy.sql", "beforeEachMigrate__tidy.sql"):
        (migrations / callback).write_text("truncate item;")
        refused = type_("migrate", "apply", "shop")
        assert refused.code == 3
        assert f"{callback} destroys data of shop (truncate)" in refused.err
        (migrations / callback).unlink()
    assert rows(database) == 10
