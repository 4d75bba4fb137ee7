"""Failing rows and the quarantine as a person types them: ``check --dry-run``, ``report rows``, ``quarantine``."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.typed import Type, typist

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  failed_rows: {keep: 3, retain: 30 days}
  quality:
    - table: person
      mask: {email: partial, name: redact}
      checks:
        - matches: {column: email, regex: "^[^@]+@[^@]+$"}
          quarantine: true
        - not_null: age
          keep_rows: 2
        - sql: {name: no_name, rows: "select id, name as who from person where id > 5"}
          accepted_until: {date: 9999-12-31, reason: "they are being called"}
"""


@pytest.fixture
def declaration(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a declared database with a table of ten persons, of whom four have no address."""
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    with psycopg.connect(database.url) as session:
        session.execute(
            "create table person (id int primary key, name text, email text, age int);"
            "insert into person select i, 'Ada ' || i, case when i > 4 then 'ada@lovelace.org' else 'no address' end "
            "from generate_series(1, 10) i"
        )
    return file


@pytest.fixture
def type_(declaration: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    return typist(declaration.parent.parent.parent, capsys)


def test_a_dry_run_judges_by_what_earlier_runs_have_measured(type_: Type, declaration: Path, ledger: Ledger) -> None:
    declaration.write_text(
        f"{DECLARATION}        - anomaly: {{metric: row_count, min_history: 2, seasonality: none}}\n"
    )
    with psycopg.connect(ledger.target.url) as session:
        session.execute(
            "insert into ledger.quality_history"
            " (database, table_name, name, at, run_id, type, status, value, seconds)"
            " select 'shop', 'public.person', 'anomaly_row_count', now() - n * interval '1 day', n::text, 'anomaly',"
            " 'passed', 1000, 0 from generate_series(1, 9) n"
        )
    found = {one["name"]: one for one in type_("check", "shop", "--dry-run", "--json").json["tables"][0]["checks"]}
    assert found["anomaly_row_count"]["status"] == "failed"


def test_rows_are_moved_shown_masked_written_to_files_and_returned(type_: Type, tmp_path: Path) -> None:
    planned = type_("check", "shop", "--dry-run")
    assert planned.code == 1
    assert "Its rows would be moved to dbplatform.quarantine_person." in planned.out
    assert type_("quarantine", "list", "shop").out == "No row lies aside.\n"

    checked = type_("check", "shop", "--json")
    assert checked.code == 1
    matches, null, accepted = checked.json["tables"][0]["checks"]
    assert (matches["status"], matches["failed_rows"], matches["kept_rows"]) == ("failed", 4, 3)
    assert (matches["quarantined_rows"], matches["masked_columns"]) == (4, ["email"])
    assert (null["failed_rows"], null["kept_rows"]) == (10, 2)
    assert (accepted["status"], accepted["accepted_reason"]) == ("accepted", "they are being called")

    shown = type_("report", "rows", "shop", "--check", "matches_email")
    assert shown.out.splitlines() == ["id,email", "1,no***ss", "2,no***ss", "3,no***ss"]
    assert "3 of 4 failing rows are kept" in shown.err
    document = type_("report", "rows", "shop", "--check", "no_name", "--json", "--limit", "1").json
    assert document["rows"] == [{"id": 6, "who": "***"}]
    assert (document["failed_rows"], document["kept_rows"]) == (5, 3)
    file = tmp_path / "rows.parquet"
    written = type_(
        "report", "rows", "shop", "--check", "no_name", "--format", "parquet", "--output", str(file), "--json"
    )
    assert (written.json["output"], "rows" in written.json) == (str(file), False)
    assert pq.read_table(file).to_pydict() == {"id": ["6", "7", "8"], "who": ["***"] * 3}

    (aside,) = type_("quarantine", "list", "shop", "--json").json["quarantine"]
    assert (aside["table"], aside["rows"], aside["checks"]) == ("public.person", 4, ["matches_email"])
    assert aside["run_id"] == checked.json["run_id"]
    assert type_("quarantine", "return", "shop", "--dry-run", "--json").json["returned"] == []
    assert type_("quarantine", "return", "shop").code == 2, "nobody answered"
    returned = type_("quarantine", "return", "shop", "--check", "matches_email", "--yes", "--json")
    assert [one["rows"] for one in returned.json["returned"]] == [4]
    assert type_("quarantine", "list", "shop").out == "No row lies aside.\n"


def test_rows_that_the_table_refuses_stay_aside_and_are_a_finding(type_: Type, database: Target) -> None:
    type_("check", "shop")
    with psycopg.connect(database.url) as session:
        session.execute("insert into person values (1, 'Eva', 'eva@example.org', 1)")
    returned = type_("quarantine", "return", "shop", "--yes")
    assert returned.code == 1
    assert "3 rows went back to person." in returned.out
    assert "1 rows stay in dbplatform.quarantine_person: person refuses them by person_pkey" in returned.err


def test_parquet_on_a_terminal_and_an_unknown_check_are_refused(type_: Type) -> None:
    type_("check", "shop")
    refused = type_("report", "rows", "shop", "--check", "matches_email", "--format", "parquet", "--json")
    assert (refused.code, refused.json["error"]["kind"]) == (2, "parquet_needs_a_file")
    unknown = type_("report", "rows", "shop", "--check", "nope", "--json")
    assert (unknown.code, unknown.json["error"]["kind"]) == (2, "no_such_result")


def test_a_mask_on_a_column_that_is_not_there_is_told_with_its_line(type_: Type, declaration: Path) -> None:
    declaration.write_text(DECLARATION.replace("email: partial", "e_mail: partial"))
    error = type_("check", "shop", "--json").json["error"]
    assert (error["message"], error["line"]) == ("person has no column e_mail, which is to be masked.", 8)


@pytest.mark.parametrize(
    ("written", "instead", "line", "says"),
    [
        ("email: partial", "email: blur", 8, "'redact', 'hash' or 'partial'"),
        ("keep_rows: 2", "quarantine: {at_most: lots}", 13, "neither a number of rows"),
        ("accepted_until: {date: 9999-12-31, reason: ", "accepted_until: 2030-01-01 #", 15, "needs a reason"),
        ('reason: "they are being called"', "by: me", 15, "no key 'by'"),
        ("- not_null: age\n          keep_rows: 2", "- unique: age\n          quarantine: true", 13, "by itself"),
        ("keep: 3", "keep: -3", 5, "greater than or equal to 0"),
    ],
)
def test_a_mistake_is_told_with_its_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], written: str, instead: str, line: int, says: str
) -> None:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION.replace(written, instead))
    error = typist(tmp_path, capsys)("check", "shop", "--json").json["error"]
    assert (says in f"{error['message']} {error['hint']}", error["line"]) == (True, line), error
