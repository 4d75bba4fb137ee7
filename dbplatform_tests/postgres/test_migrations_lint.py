"""``dbplatform migrate lint`` and the findings in ``migrate plan``, as a person types them."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.cli.main import main
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.typed import Type, typist

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection:
    url_env: SHOP_URL
    environment: test
  migrations:
    directory: migrations
"""
RULE = "require-concurrent-index-creation"
INDEX = "create index item_price on item (price);\n"


@pytest.fixture
def shop(tmp_path: Path, database: Target, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a declared database whose first file is applied."""
    folder = tmp_path / "defs" / "shop"
    (folder / "migrations").mkdir(parents=True)
    (folder / "defs.yaml").write_text(DECLARATION)
    (folder / "migrations" / "V1__item.sql").write_text("create table item (id int, price int);\n")
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    return folder


@pytest.fixture
def type_(shop: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    return typist(shop.parent.parent, capsys)


def test_pending_files_are_linted_with_file_and_line_and_exit_1(type_: Type, shop: Path, database: Target) -> None:
    (shop / "migrations" / "V2__index.sql").write_text(f"\n{INDEX}")
    (shop / "migrations" / "U2__index.sql").write_text("drop index item_price;\n")
    found = type_("migrate", "lint", "shop")
    assert found.code == 1
    assert f"defs/shop/migrations/V2__index.sql:2:1: {RULE}: During normal index creation" in found.out
    assert "defs/shop/migrations/U2__index.sql:1:1: require-concurrent-index-deletion:" in found.out
    with connect(database, work="test") as connection:
        major = connection.info.server_version // 10000
    assert f"shop: 2 open, 0 accepted (pending files: 3, judged for PostgreSQL {major})" in found.out


def test_the_document_has_every_finding_and_exit_0_when_none_is_open(type_: Type, shop: Path) -> None:
    (shop / "migrations" / "V2__index.sql").write_text(f"-- dbplatform:accept {RULE}: nobody writes yet\n{INDEX}")
    found = type_("migrate", "lint", "shop", "--json")
    assert found.code == 0
    assert (found.json["database"], found.json["files"]) == ("shop", 2)
    finding = found.json["findings"][0]
    assert set(finding) == {"file", "line", "column", "rule", "level", "message", "help", "status", "reason"}
    assert (finding["line"], finding["status"], finding["reason"]) == (2, "accepted", "nobody writes yet")


def test_a_plan_has_the_findings_of_each_file_and_says_when_it_could_not_be_linted(
    type_: Type, shop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (shop / "migrations" / "V2__index.sql").write_text(INDEX)
    planned = type_("migrate", "plan", "shop", "--json").json["migrations"]
    assert [[f["rule"] for f in m["findings"]] for m in planned] == [[], [RULE]]
    shown = type_("migrate", "plan", "shop")
    assert (shown.code, "V2__index.sql:1:1: require-concurrent" in shown.out) == (0, True)
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    planned = type_("migrate", "plan", "shop", "--json")
    assert [m["findings"] for m in planned.json["migrations"]] == [None, None]
    assert "Not linted: The program squawk is missing" in planned.err
    assert type_("migrate", "lint", "shop").code == 3


def test_all_files_are_linted_without_a_server(type_: Type, shop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (shop / "migrations" / "V2__who.sql").write_text(
        "-- ${flyway:user} of ${flyway:database}\n" + INDEX, encoding="utf-8"
    )
    for url in ("postgresql://nobody@127.0.0.1:1/nothing", ""):
        monkeypatch.setenv("SHOP_URL", url)
        found = type_("migrate", "lint", "shop", "--all")
        assert (found.code, "V2__who.sql:2:1" in found.out) == (1, True)
        assert "(files: 2, judged for the newest PostgreSQL)" in found.out
    assert type_("migrate", "lint", "shop").code == 2


def test_a_declared_acceptance_that_accepts_nothing_is_found_with_its_line(type_: Type, shop: Path) -> None:
    accept = f"    lint:\n      accept:\n        - {{rules: [{RULE}], script: V1__*.sql, reason: it was empty}}\n"
    (shop / "defs.yaml").write_text(DECLARATION + accept)
    found = type_("migrate", "lint", "shop", "--all")
    assert found.code == 1
    assert f"defs.yaml:11:1: unused-accept: The declaration accepts nothing: {RULE} is not found in V1__*.sql." in (
        found.out
    )
    assert type_("migrate", "lint", "shop").code == 0
    (shop / "defs.yaml").write_text(DECLARATION + accept.replace(RULE, "slow-index"))
    refused = type_("migrate", "lint", "shop", "--all")
    assert refused.code == 2
    assert "Lint has no rule 'slow-index'" in refused.err
    assert "defs.yaml:10" in refused.err


def test_the_files_of_every_declared_database_have_no_open_finding(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("flights", "scriptsensei", "scribemed", "restoreassist", "n8n_scraper", "ap_intake"):
        with pytest.raises(SystemExit) as left:
            main(["migrate", "lint", name, "--all", "--json"])
        assert left.value.code == 0, capsys.readouterr().out
