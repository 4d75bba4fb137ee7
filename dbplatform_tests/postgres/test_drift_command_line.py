"""``dbplatform migrate drift``, and ``migrate apply`` under ``block_on_drift``, as a person types them."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dbplatform.archiving.tables import HELD_DDL
from dbplatform.ledger.ledger import Ledger
from dbplatform.partitioning.bounds import Bounds
from dbplatform.partitioning.retired import remember
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.postgres.state import ensure_state
from dbplatform_tests.typed import Type, typist

DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL, environment: test}
  migrations: {block_on_drift: true}
"""


@pytest.fixture
def files(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the migrations of a declared database."""
    folder = tmp_path / "defs" / "shop" / "migrations"
    folder.mkdir(parents=True)
    (folder.parent / "defs.yaml").write_text(DECLARATION)
    (folder / "V1__item.sql").write_text("create table item (id int primary key, price int not null default 0);\n")
    (folder / "V2__price.sql").write_text("create index item_price on item (price);\n")
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    return folder


@pytest.fixture
def type_(files: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    return typist(files.parent.parent.parent, capsys)


def by_hand(database: Target, statements: str) -> None:
    with connect(database, work="test") as connection:
        connection.execute(statements.encode())


def test_no_drift_is_exit_0_and_a_difference_exit_1_with_its_sentence_and_its_sql(
    type_: Type, database: Target
) -> None:
    type_("migrate", "apply", "shop")
    clean = type_("migrate", "drift", "shop")
    assert (clean.code, clean.out) == (0, "shop: the schema is what its migrations make, at version 2\n")
    by_hand(database, "drop index item_price; create table note (id int); alter table item alter price drop not null")
    shown = type_("migrate", "drift", "shop")
    assert shown.code == 1
    assert [line.strip() for line in shown.out.splitlines()] == [
        "shop: 3 differences from what its migrations make, at version 2",
        "missing:",
        "index public.item_price is missing",
        "different:",
        "column public.item.price is nullable, the migrations make it NOT NULL",
        "only here:",
        "table public.note should not be there",
        "SQL that mends 2 of them and drops no data; read it before you run it:",
        "alter table public.item alter column price set not null;",
        "CREATE INDEX CONCURRENTLY item_price ON public.item USING btree (price);",
    ]


def test_tables_that_the_platform_has_made_or_set_aside_are_noted_and_no_drift(
    type_: Type, files: Path, database: Target
) -> None:
    event = "{table: event, column: at, interval: 1 month, start: 2026-01-01}"
    (files.parent / "defs.yaml").write_text(f"{DECLARATION}  partitioned_tables: [{event}]\n")
    (files / "V3__event.sql").write_text("create table event (at timestamptz not null) partition by range (at);\n")
    type_("migrate", "apply", "shop")
    january = Bounds(datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    by_hand(database, "create table event_1 partition of event for values from ('2026-01-01') to ('2026-02-01')")
    with connect(database, work="test") as connection:
        row = connection.execute("select 'event_1'::regclass::oid::bigint").fetchone()
        assert row is not None
        remember(connection, Relation.parse("event"), Relation.parse("event_1"), row[0], january)
        ensure_state(connection, "archive_held", HELD_DDL)
    by_hand(database, "alter table event detach partition event_1; create index on event_1 (at)")
    by_hand(database, "create table old_item (id int primary key); grant select on old_item to public")
    assert type_("migrate", "drift", "shop").code == 1
    by_hand(
        database, "insert into dbplatform.archive_held values (gen_random_uuid(), 'public.old_item', '{}', default)"
    )
    shown = type_("migrate", "drift", "shop", "--json")
    assert (shown.code, shown.json["differences"]) == (0, [])
    assert shown.json["notes"] == [
        "The table public.event_1 was a partition of public.event until it was retired.",
        "The table public.old_item holds archived rows.",
    ]


def test_the_document_has_the_shape_of_the_contract(type_: Type, database: Target) -> None:
    type_("migrate", "apply", "shop")
    by_hand(database, "alter table item alter price set default 1")
    document = type_("migrate", "drift", "shop", "--json").json
    assert document == {
        "database": "shop",
        "version": "2",
        "differences": [
            {
                "object": "public.item.price",
                "kind": "column",
                "part": "default",
                "expected": "0",
                "actual": "1",
                "sentence": "column public.item.price has the default 1, the migrations make it 0",
                "fix_sql": "alter table public.item alter column price set default 0;",
            }
        ],
        "left_out": [],
        "notes": [],
    }


def test_what_is_expected_is_built_once_for_the_same_files_and_history(
    type_: Type, files: Path, ledger: Ledger, database: Target
) -> None:
    def built() -> int:
        with connect(ledger.target, work="test") as connection:
            row = connection.execute("select count(*) from ledger.trial where kind = 'schema'").fetchone()
            assert row is not None
            return int(row[0])

    type_("migrate", "apply", "shop")
    before = built()
    type_("migrate", "drift", "shop")
    by_hand(database, "create table note (id int)")
    assert type_("migrate", "drift", "shop").code == 1
    assert built() == before + 1
    (files / "V2__price.sql").write_text("create index item_price on item (price); -- as before\n")
    assert type_("migrate", "drift", "shop").code == 2
    assert built() == before + 1


def test_a_drifted_schema_blocks_apply_until_it_is_mended(type_: Type, files: Path, database: Target) -> None:
    type_("migrate", "apply", "shop")
    by_hand(database, "create table note (id int); drop index item_price")
    assert "nothing to do, at version 2" in type_("migrate", "apply", "shop").out
    (files / "V3__name.sql").write_text("alter table item add name text;\n")
    refused = type_("migrate", "apply", "shop")
    assert refused.code == 2
    assert "The schema of shop is not what its migrations make, and block_on_drift is declared" in refused.err
    assert "block_on_drift is declared: table public.note should not be there (and 1 more)." in refused.err
    assert "(and 1 more)" in refused.err
    assert "dbplatform migrate drift shop" in refused.err
    by_hand(database, "drop table note; create index item_price on item (price)")
    assert "1 applied, now at version 3" in type_("migrate", "apply", "shop").out


def test_a_baseline_without_a_file_is_an_error_and_never_no_drift(type_: Type, files: Path, database: Target) -> None:
    (files / "V1__item.sql").unlink()
    by_hand(database, "create table item (id int primary key, price int)")
    type_("migrate", "baseline", "shop", "--version", "1")
    told = type_("migrate", "drift", "shop")
    assert (told.code, told.out) == (3, "")
    assert "could not be compared with its migrations: it was taken over at version 1" in told.err


def test_with_nothing_pending_apply_does_not_even_load_what_compares(type_: Type, files: Path) -> None:
    type_("migrate", "apply", "shop")
    program = (
        "import sys\n"
        "from dbplatform.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "except SystemExit as left:\n"
        "    print(sorted(name for name in sys.modules if 'drift' in name or name == 'sqlalchemy'), left.code)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "-C", str(files.parent.parent.parent), "migrate", "apply", "shop"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines() == ["shop: nothing to do, at version 2", "[] 0"]
