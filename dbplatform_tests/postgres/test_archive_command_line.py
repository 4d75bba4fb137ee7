"""``dbplatform archive`` as a person types it: rows leave with their children, are erased, expire, and stay away."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from dbplatform.backups.physical import cluster
from dbplatform.errors import WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.postgres.archiving_support import ask, at, fill
from dbplatform_tests.typed import Type, typist

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, scratch_url_env: SCRATCH_URL, environment: test}
  backups: {}
  archives:
    - {name: old, table: orders, column: at, older_than: 1 month, keep: 2 months, children: archive}
"""
SHOP = """
    create table orders (id int primary key, at timestamptz not null, email text);
    create table lines (id int primary key, order_id int references orders on delete cascade);
    insert into orders select i, timestamptz '2020-01-01' + i * interval '1 day', 'p' || i || '@example.org'
    from generate_series(1, 20) i;
    insert into orders select i, now(), 'p' || i || '@example.org' from generate_series(21, 30) i;
    insert into lines select i, i from generate_series(1, 15) i;
"""


@pytest.fixture
def type_(
    tmp_path: Path,
    database: Target,
    ledger: Ledger,
    server_url: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Type:
    """A declared database with a backup that a restore has proven."""
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(DECLARATION)
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("SCRATCH_URL", server_url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    fill(database, SHOP)
    typed = typist(tmp_path, capsys)
    assert typed("backup", "create", "shop").code == 0
    assert typed("drill", "shop").code == 0
    return typed


def test_what_was_erased_on_purpose_does_not_come_back_by_any_restore(type_: Type, database: Target) -> None:
    applied = type_("archive", "apply", "shop")
    assert applied.code == 0
    assert "along with them: 15 rows of public.lines" in applied.out
    assert "20 rows archived, 15 of public.lines along; 0 changed meanwhile" in applied.out

    planned = type_("archive", "erase", "shop", "--table", "orders", "--where", "id in (18, 25)", "--dry-run", "--json")
    assert (planned.json["rows"], [one["rows"] for one in planned.json["archives"]]) == (1, [1])
    refused = type_("archive", "erase", "shop", "--table", "orders", "--key", "id=25")
    assert (refused.code, ask(database, "select count(*) from orders")) == (2, 10)
    erased = type_("archive", "erase", "shop", "--table", "orders", "--where", "id in (18, 25)", "--yes", "--json")
    [erasure] = erased.json["erasures"]
    assert (erasure["keys"], erasure["rows"], [one["rows"] for one in erasure["archives"]]) == (2, 1, [1])

    copy = f"{conninfo_to_dict(database.url)['dbname']}_restored"
    try:
        restored = type_("restore", "shop", "--into", copy, "--json")
        assert restored.json["erased_again"] == {"public.orders": 2}
        there = database.__class__("copy", make_conninfo(database.url, dbname=copy))
        assert ask(there, "select count(*), count(*) filter (where id in (18, 25)) from orders") == (28, 0)
        assert type_("archive", "replay", "shop", "--dry-run").out.strip() == "nothing has come back"
    finally:
        with psycopg.connect(make_conninfo(database.url, dbname="postgres"), autocommit=True) as session:
            session.execute(sql.SQL("drop database if exists {}").format(sql.Identifier(copy)))
    aside = type_("restore", "shop", "--table", "orders", "--aside", "aside", "--json")
    assert (aside.json["rows"], aside.json["erased_again"]) == (28, {"public.orders": 2})


def test_an_expired_archive_goes_with_its_children_when_that_is_confirmed(
    type_: Type, database: Target, tmp_path: Path
) -> None:
    type_("archive", "apply", "shop")
    shown = type_("archive", "expire", "shop", "--dry-run")
    assert shown.code == 0
    assert "newest row 2020-01-21, goes" in shown.out
    assert type_("archive", "expire", "shop").code == 2
    files = list((tmp_path / ".dbplatform" / "archives").rglob("*.parquet"))
    assert len(files) == 2
    assert "removed 2 archives" in type_("archive", "expire", "shop", "--yes").out
    assert not any(file.exists() for file in files)
    assert type_("archive", "list", "shop", "--json").json["archives"] == []
    fill(database, "insert into orders values (3, '2020-01-04', 'back by other means')")
    fill(database, "delete from dbplatform.archive_erased")
    replayed = type_("archive", "replay", "shop", "--yes")
    assert "public.orders: 1 rows erased again" in replayed.out
    assert ask(database, "select count(*) from orders") == 10


def test_no_archive_expires_by_a_clock_that_the_server_contradicts(
    type_: Type, tmp_path: Path, clock_ahead: Callable[..., AbstractContextManager[None]]
) -> None:
    type_("archive", "apply", "shop")
    with clock_ahead():
        refused = type_("archive", "expire", "shop", "--yes")
    assert refused.code == 3
    assert "clock is 3653 days, 0:00:00 ahead of the server's" in refused.err
    assert len(list((tmp_path / ".dbplatform" / "archives").rglob("*.parquet"))) == 2


@pytest.mark.parametrize(
    "command",
    ["archive plan shop", "archive apply shop", "backup prune shop --yes --json", "archive expire shop --yes"],
)
def test_nothing_is_done_by_a_clock_that_the_server_contradicts(
    type_: Type, database: Target, clock_ahead: Callable[..., AbstractContextManager[None]], command: str
) -> None:
    with clock_ahead():
        refused = type_(*command.split())
    assert refused.code == 3
    assert "ahead of the server's" in refused.err + refused.out
    assert ask(database, "select count(*) from orders") == 30


def test_of_what_a_wrong_clock_would_remove_the_clean_up_says_that_it_is_not_known(
    type_: Type, clock_ahead: Callable[..., AbstractContextManager[None]]
) -> None:
    with clock_ahead():
        planned = type_("cleanup", "shop", "--dry-run", "--json")
    assert {kind for kind, words in planned.json["unknown"].items() if "ahead of the server's" in words} == {
        "archive",
        "history",
    }


def test_rows_are_erased_from_an_archive_whose_maker_had_a_clock_that_was_ahead(
    type_: Type, clock_ahead: Callable[..., AbstractContextManager[None]]
) -> None:
    with clock_ahead(timedelta(minutes=50)):
        type_("archive", "apply", "shop")
    erased = type_("archive", "erase", "shop", "--table", "orders", "--key", "id=18", "--yes", "--json")
    [erasure] = erased.json["erasures"]
    assert [one["rows"] for one in erasure["archives"]] == [1]


@pytest.mark.parametrize("command", ["archive expire", "cleanup"])
def test_an_expiry_killed_once_it_was_decided_is_found_and_finished(
    type_: Type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    monkeypatch.setattr(cluster, "SHARED_ROOT", tmp_path / "shared")  # nothing of others on this machine is touched

    def die() -> None:
        raise WorkError("killed")

    type_("archive", "apply", "shop")
    with at("decided", die):
        assert type_("archive", "expire", "shop", "--yes").code == 3
    files = list((tmp_path / ".dbplatform" / "archives").rglob("*.parquet"))
    assert type_("archive", "list", "shop", "--json").json["archives"] == []
    assert len(files) == 2

    words = (*command.split(), "shop")
    planned = type_(*words, "--dry-run")
    assert (planned.code, "interrupted" in planned.out) == (0, True)
    assert type_(*words).code == 2, "nobody has said yes"
    assert [file for file in files if file.exists()] == files
    assert type_(*words, "--yes").code == 0
    assert [file for file in files if file.exists()] == []
    assert "interrupted" not in type_(*words, "--dry-run").out


def test_a_run_that_has_nothing_to_do_is_not_recorded(type_: Type, ledger: Ledger) -> None:
    runs = "select count(*) from ledger.operation where kind = 'archive'"
    assert [(type_("archive", "apply", "shop").code, ask(ledger.target, runs)) for _ in range(2)] == [(0, 1), (0, 1)]
    assert "0 rows archived; 0 changed meanwhile and 0 not proven stayed" in type_("archive", "apply", "shop").out


def test_an_erasure_that_says_no_rows_is_refused(type_: Type) -> None:
    assert "Nothing says which rows" in type_("archive", "erase", "shop", "--table", "orders").err
    assert "names no column and value" in type_("archive", "erase", "shop", "--table", "orders", "--key", "5").err
