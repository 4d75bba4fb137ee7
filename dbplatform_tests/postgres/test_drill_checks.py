"""The checks on a restored copy: what speaks against the backup, what is the data's fault, and what cannot be told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from dbplatform.backups.catalogue import find_backup
from dbplatform.backups.checked import CheckProof
from dbplatform.backups.drill import drill, list_drills
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations import backups, checks, drill_checks
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.postgres.backups_support import NAME, back_up, named_database, new_name, server
from dbplatform_tests.typed import typist

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test, scratch_url_env: SHOP_URL}
  backups: {drill: {checks: true, checks_limit: 5 minutes}}
  quality:
    - table: item
      checks:
        - not_null: word
        - sql: {name: usable, rows: "select * from item where not usable(id)"}
        - relationship: {column: kind, to: kind.id}
"""
_TABLES = """
    create table kind (id int primary key);
    insert into kind values (1), (2);
    create table item (id int primary key, word text, kind int);
    insert into item select g, 'w' || g, 1 from generate_series(1, 10) g;
    create function usable(id int) returns bool language sql as 'select id > 0';
"""


class Shop:
    """A declared database, and a copy of it as a drill would have restored it."""

    def __init__(self, folder: Path, source: Target, copy: Target, server_url: str) -> None:
        self.folder, self.source, self.copy, self.server_url = folder, source, copy, server_url
        self.at = datetime.now(UTC)

    @property
    def platform(self) -> Platform:
        return Platform(Project.at(self.folder))

    def declare(self, text: str) -> None:
        (self.folder / "defs" / "shop" / "defs.yaml").write_text(text)

    def execute(self, where: Target, statement: str) -> None:
        with psycopg.connect(where.url, autocommit=True) as connection:
            connection.execute(statement.encode())

    def copy_now(self) -> None:
        """Make the copy of what the source holds now."""
        names = [sql.Identifier(conninfo_to_dict(target.url)["dbname"]) for target in (self.copy, self.source)]
        with psycopg.connect(self.server_url, autocommit=True) as connection:
            connection.execute(sql.SQL("create database {} template {}").format(*names))
        self.at = datetime.now(UTC)

    def check(self) -> None:
        """Run the declared checks on the source, as a run does."""
        platform = self.platform
        run_id = new_name()
        checks.check_table(platform, platform.declarations.get("shop"), Relation.parse("item"), run_id=run_id)

    def examine(self) -> dict[str, CheckProof]:
        platform = self.platform
        found = drill_checks.examine(platform, platform.declarations.get("shop"), self.copy, at=self.at)
        return {proof.check: proof for proof in found}

    def verdicts(self) -> dict[str, str]:
        return {name: proof.verdict for name, proof in self.examine().items()}


@pytest.fixture
def shop(
    tmp_path: Path, database: Target, ledger: Ledger, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Shop]:
    (tmp_path / "defs" / "shop").mkdir(parents=True)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    with named_database(server_url, new_name()) as copy:
        made = Shop(tmp_path, database, copy, server_url)
        made.declare(_DECLARATION)
        made.execute(database, _TABLES)
        yield made


def test_a_drill_runs_the_checks_and_keeps_what_they_said_beside_the_source(
    shop: Shop, ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    shop.execute(shop.source, "update item set word = null where id <= 3")
    shop.check()
    backups.take(shop.platform, shop.platform.declarations.get("shop"))
    typed = typist(shop.folder, capsys)
    found = typed("drill", "shop", "--json").json
    assert found["proven"] is True
    said = {check["check"]: check for check in found["checks"]}
    assert {name: check["verdict"] for name, check in said.items()} == {
        "not_null_word": "finding",
        "usable": "passed",
        "relationship_kind": "passed",
    }
    finding = said["not_null_word"]
    assert (finding["failed_rows"], finding["source_failed_rows"], finding["source_status"]) == (3, 3, "failed")
    assert datetime.fromisoformat(finding["source_at"]).tzinfo is not None
    assert list_drills(ledger, "shop")[0].checks == found["checks"]

    shop.declare(_DECLARATION.replace("checks: true", "checks: false"))
    assert typed("drill", "shop", "--json").json["checks"] == []
    shop.declare(_DECLARATION)
    assert "checks on the copy: 2 passed, 1 as on the source\n" in typed("drill", "shop").out


def test_a_check_that_cannot_run_on_the_copy_alone_speaks_against_the_backup(shop: Shop) -> None:
    shop.copy_now()
    shop.execute(shop.copy, "drop function usable")
    proof = shop.examine()["usable"]
    assert (proof.status, proof.verdict, proof.source_status) == ("errored", "failed", None)
    assert proof.difference is not None
    assert "function usable(integer) does not exist" in proof.difference
    shop.check()
    assert shop.examine()["usable"].source_status == "passed"
    shop.execute(shop.source, "drop function usable")
    assert shop.verdicts()["usable"] == "finding"


def test_other_answers_on_the_same_rows_speak_against_it_and_on_other_rows_they_tell_nothing(shop: Shop) -> None:
    shop.copy_now()
    shop.execute(shop.copy, "create or replace function usable(id int) returns bool language sql as 'select id > 5'")
    proof = shop.examine()["usable"]
    assert (proof.status, proof.failed_rows, proof.verdict) == ("failed", 5, "failed")
    assert (proof.reason or "").endswith("on the same rows")
    shop.execute(shop.source, "delete from item where id = 1")
    assert shop.verdicts()["usable"] == "undecided"


def test_a_check_that_stumbles_over_rows_of_the_copy_is_undecided_where_the_source_holds_others(shop: Shop) -> None:
    divides = "select * from item where 10 / kind < 1"
    shop.declare(_DECLARATION.replace("select * from item where not usable(id)", divides))
    shop.check()
    shop.execute(shop.source, "update item set kind = 0 where id = 1")
    shop.copy_now()
    shop.execute(shop.source, "update item set kind = 1 where id = 1")
    proof = shop.examine()["usable"]
    assert (proof.status, proof.source_status, proof.verdict) == ("errored", "passed", "undecided")
    assert "division by zero" in proof.message


def test_what_the_copys_server_lacks_speaks_against_no_backup(shop: Shop) -> None:
    shop.copy_now()
    for sqlstate, words in (
        ("53200", "out of memory"),
        ("53100", "could not extend file: No space left on device"),
        ("55000", "usable must be loaded via shared_preload_libraries"),
        ("58P01", "could not access file $libdir/usable: No such file or directory"),
        ("42501", "permission denied for table item"),
    ):
        body = f"begin raise '{words}' using errcode = '{sqlstate}'; end"
        shop.execute(
            shop.copy, f"create or replace function usable(id int) returns bool language plpgsql as $${body}$$"
        )
        proof = shop.examine()["usable"]
        assert (proof.status, proof.verdict) == ("errored", "undecided"), words


def test_two_checks_that_cannot_run_agree_only_where_it_is_for_the_same_reason(shop: Shop) -> None:
    shop.copy_now()
    shop.execute(shop.copy, "drop function usable")
    body = "begin raise 'another matter'; end"
    shop.execute(shop.source, f"create or replace function usable(id int) returns bool language plpgsql as $${body}$$")
    proof = shop.examine()["usable"]
    assert (proof.verdict, proof.reason) == ("undecided", "the source cannot run it now")
    shop.execute(shop.source, "drop function usable")
    assert shop.verdicts()["usable"] == "finding"


def test_a_measured_value_is_as_on_the_source_only_where_it_is_the_same_value(shop: Shop) -> None:
    shop.declare(_DECLARATION + "        - row_count: {min: 100}\n")
    shop.check()
    shop.execute(shop.source, "delete from item where id > 4")
    shop.copy_now()
    assert shop.verdicts()["row_count"] == "finding", "as on the source now"
    shop.execute(shop.source, "delete from item where id > 2")
    assert shop.verdicts()["row_count"] == "undecided"


def test_rows_that_a_function_reads_count_too(shop: Shop) -> None:
    body = "begin return id = 1 or exists (select from kind where kind.id = 2); end"
    shop.execute(shop.source, f"create or replace function usable(id int) returns bool language plpgsql as $${body}$$")
    shop.execute(shop.source, "delete from kind where id = 2")
    shop.copy_now()
    shop.execute(shop.source, "insert into kind values (2)")
    proof = shop.examine()["usable"]
    assert (proof.failed_rows, proof.verdict) == (9, "undecided")


def test_anomalies_are_left_to_the_source_which_has_a_past(shop: Shop) -> None:
    shop.copy_now()
    shop.declare(_DECLARATION + "        - anomaly: {metric: row_count}\n")
    assert set(shop.verdicts()) == {"not_null_word", "usable", "relationship_kind"}


def test_what_was_mended_on_the_source_since_is_undecided_whichever_table_it_was(shop: Shop) -> None:
    shop.execute(shop.source, "insert into item values (11, null, 3)")
    shop.copy_now()
    assert shop.verdicts() == {"not_null_word": "finding", "usable": "passed", "relationship_kind": "finding"}
    shop.execute(shop.source, "insert into kind values (3)")
    assert shop.verdicts() == {"not_null_word": "finding", "usable": "passed", "relationship_kind": "undecided"}
    shop.execute(shop.source, "update item set word = 'x'")
    assert shop.verdicts()["not_null_word"] == "undecided"


def test_a_check_on_what_came_after_the_backup_is_no_fault_of_it(shop: Shop) -> None:
    shop.copy_now()
    shop.execute(shop.source, "alter table item add price int default 0; create table later (id int);")
    shop.declare(_DECLARATION + "        - not_null: price\n    - {table: later, checks: [{not_null: id}]}\n")
    found = shop.examine()
    assert (found["not_null_price"].verdict, found["not_null_id"].verdict) == ("undecided", "undecided")
    shop.execute(shop.source, "drop table later")
    assert shop.examine()["not_null_id"].verdict == "finding"


def test_without_the_source_only_what_is_recorded_of_it_counts(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.execute(shop.source, "insert into item values (11, null, 3)")
    shop.check()
    shop.copy_now()
    shop.execute(shop.copy, "drop function usable; insert into item values (12, 'x', 4)")
    monkeypatch.delenv("SHOP_URL")
    assert shop.verdicts() == {"not_null_word": "finding", "usable": "failed", "relationship_kind": "undecided"}


def test_what_takes_too_long_is_undecided(shop: Shop) -> None:
    shop.copy_now()
    shop.declare(_DECLARATION.replace("5 minutes", "1 second").replace("not usable(id)", "pg_sleep(600) is null"))
    assert shop.verdicts()["usable"] == "undecided"
    naps = "select x from (select pg_sleep(0.7)::text as x offset 0) s where x <> ''"
    some = "".join(f'        - sql: {{name: nap_{number}, rows: "{naps}"}}\n' for number in range(3))
    shop.declare(_DECLARATION.replace("5 minutes", "1 second") + some)
    assert shop.verdicts()["nap_2"] == "undecided", "all of them share the time"
    shop.declare(_DECLARATION.replace("5 minutes", "1 microsecond"))
    assert set(shop.verdicts().values()) == {"undecided"}


def test_a_backup_against_which_a_check_speaks_is_not_proven(
    database: Target, ledger: Ledger, tmp_path: Path, server_url: str
) -> None:
    proof = CheckProof(
        table="public.item",
        check="usable",
        status="errored",
        failed_rows=None,
        message="no such function",
        source_status="passed",
        source_failed_rows=0,
        source_at=datetime.now(UTC),
        verdict="failed",
        reason="and passed on the source",
    )
    backup = back_up(database, tmp_path, ledger)

    def prove(examine: Callable[[Target], tuple[CheckProof, ...]]) -> bool:
        return drill(backup, ledger, server(server_url), programs=find_programs(), examine=examine).proven

    assert prove(lambda copy: ())
    assert not prove(lambda copy: (proof,))
    listed = find_backup(ledger, NAME, backup.id)
    assert listed.proven_at is None
    assert "the check usable of public.item errored on the copy (no such function)" in (listed.damage or "")
