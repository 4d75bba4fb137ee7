"""``dbplatform partition`` as a person types it: what it prints, asks and answers."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from dateutil.relativedelta import relativedelta
from psycopg import sql

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.typed import Type, typist

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  partitioned_tables:
    - {table: sale, column: at, interval: 1 month, premake: 2, start: 6 months, retain: 3 months, move_at_most: 10}
"""


@pytest.fixture
def declaration(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a declared database, whose table has rows in its default partition."""
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    with connect(database, work="test") as connection:
        connection.execute(
            "create table item (id int primary key);"
            "create table sale (item_id int references item, at timestamptz) partition by range (at);"
            "create table rest partition of sale default"
        )
        for back, rows in ((5, 3), (1, 20)):
            moment = datetime.now(UTC).replace(day=1) - relativedelta(months=back)
            connection.execute("insert into sale select null, %s from generate_series(1, %s)", (moment, rows))
    return file


@pytest.fixture
def type_(declaration: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    return typist(declaration.parent.parent.parent, capsys)


def test_plan_shows_rows_that_move_rows_that_stay_and_the_locks(type_: Type) -> None:
    shown = type_("partition", "plan", "shop")
    assert shown.code == 0
    assert "public.sale: 0 partitions, 8 to create, covers nothing now" in shown.out
    assert "public.rest holds 23 rows" in shown.out
    assert "  20 rows of sale_p" in shown.out
    assert "stay there: more than move_at_most" in shown.out
    assert "lock: ACCESS EXCLUSIVE on public.sale (rows move out of the default partition)" in shown.out
    assert "lock: SHARE ROW EXCLUSIVE on public.item (public.sale refers to it)" in shown.out


def test_apply_moves_what_it_may_and_tells_what_stays(type_: Type) -> None:
    table = type_("partition", "apply", "shop", "--json").json["tables"][0]
    assert (len(table["create"]), table["moved_rows"], table["default_rows"]) == (8, 3, 20)
    assert [left["rows"] for left in table["left_in_default"]] == [20]
    assert len(table["retire"]) == 0, "what is due is the plan's"


def test_retire_dry_run_changes_nothing_and_retire_keeps_rows_beside(type_: Type, declaration: Path) -> None:
    type_("partition", "apply", "shop")
    planned = type_("partition", "retire", "shop", "--dry-run", "--json").json["tables"][0]["retire"]
    assert [one["fate"] for one in planned] == ["drop", "detach", "drop"]
    assert [one["name"] for one in type_("partition", "plan", "shop", "--json").json["tables"][0]["retire"]] == [
        one["name"] for one in planned
    ]
    retired = type_("partition", "retire", "shop")
    assert retired.code == 0
    assert "its rows are in no archive" in retired.out
    again = type_("partition", "retire", "shop", "--json").json["tables"][0]["retire"]
    assert [(one["rows"], one["fate"]) for one in again] == [(3, "detached")]
    assert type_("partition", "apply", "shop", "--json").json["tables"][0]["create"] == []
    made = type_("partition", "apply", "shop", "--start", "4 months", "--json").json["tables"][0]["create"]
    assert len(made) == 1


def test_rows_are_not_lost_without_an_answer(type_: Type, declaration: Path) -> None:
    declaration.write_text(
        DECLARATION.replace("retain: 3 months", "retain: {keep: 3 months, then: drop_without_archive}")
    )
    type_("partition", "apply", "shop")
    asked = type_("partition", "retire", "shop")
    assert asked.code == 2
    assert "Drop 3 rows that are in no archive?" in asked.err
    dropped = type_("partition", "retire", "shop", "--yes", "--json")
    assert (dropped.code, {one["fate"] for one in dropped.json["tables"][0]["retire"]}) == (0, {"dropped"})


def test_no_partition_is_retired_by_a_clock_that_the_server_contradicts(
    type_: Type, clock_ahead: Callable[..., AbstractContextManager[None]]
) -> None:
    type_("partition", "apply", "shop")
    due = type_("partition", "plan", "shop", "--json").json["tables"][0]["retire"]
    with clock_ahead():
        refused = type_("partition", "retire", "shop", "--yes")
    assert refused.code == 3
    assert "ahead of the server's" in refused.err
    assert type_("partition", "plan", "shop", "--json").json["tables"][0]["retire"] == due != []


def test_a_partition_that_cannot_go_is_exit_1_with_the_reason(type_: Type, database: Target) -> None:
    made = type_("partition", "apply", "shop", "--json").json["tables"][0]["create"]
    with connect(database, work="test") as connection:
        view = sql.SQL("create view needed as table {}").format(sql.Identifier(made[0]["name"]))
        connection.execute(view)
    refused = type_("partition", "retire", "shop")
    assert refused.code == 1
    assert "needed" in refused.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("apply", "shop", "--start", "yesterday"), "'yesterday'"),
        (("plan", "shop", "--start", "5"), "'5' is no start"),
    ],
)
def test_a_wrong_start_is_one_sentence(type_: Type, words: tuple[str, ...], says: str) -> None:
    refused = type_("partition", *words)
    assert refused.code == 2
    assert says in refused.err


def test_a_loss_that_an_archive_contradicts_is_refused_in_the_declaration(type_: Type, declaration: Path) -> None:
    declaration.write_text(
        DECLARATION.replace("retain: 3 months", "retain: {keep: 3 months, then: drop_without_archive}")
        + "  backups: {}\n  archives: [{name: old, table: sale, column: at, older_than: 3 months}]\n"
    )
    refused = type_("partition", "plan", "shop")
    assert refused.code == 2
    assert "public.sale has an archive, and retain drops its rows without one" in refused.err


def test_retire_without_retain_says_where_to_write_it(type_: Type, declaration: Path) -> None:
    declaration.write_text(DECLARATION.replace(", retain: 3 months", ""))
    refused = type_("partition", "retire", "shop", "--json")
    assert refused.code == 2
    assert refused.json["error"]["kind"] == "not_declared"
