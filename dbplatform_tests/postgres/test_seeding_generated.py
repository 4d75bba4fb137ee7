"""Generated seeds on a real server: the same rows each time, related, and as many as are asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dbplatform.errors import PlatformError
from dbplatform.postgres.catalog import content_hash
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.seeding.apply import SeedReport, apply_seed
from dbplatform.seeding.errors import SeedChanged, SeedHeaderWrong, SeedMistake
from dbplatform.seeding.plan import plan_seed
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.verify import verify_seed

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DEV = SeedPolicy(profile="dev", directory="seeds/dev")
SCHEMA = """
    create table customers (id int primary key, email text unique, rank text, score numeric(6, 2), member bool,
                            ident uuid, born date, joined timestamptz, seen timestamptz, boss int references customers,
                            settings jsonb, check (seen >= joined));
    create table orders (shop int, nr int, customer int not null references customers, primary key (shop, nr));
    create table lines (id int primary key, shop int not null, nr int not null,
                        foreign key (shop, nr) references orders);
    create table passports (customer int primary key references customers);
"""
MANIFEST = """
tables:
- table: lines
  rows: 3000
  key: [id]
  generate:
    id: {sequence: 1}
    shop, nr: {reference: orders}
- table: orders
  rows: 1000
  key: [shop, nr]
  generate:
    shop: {integer: {min: 1, max: 5}}
    nr: {sequence: {start: 100, step: 10}}
    customer: {reference: customers}
- table: customers
  rows: 500
  key: [id]
  generate:
    id: {integer: {min: 1, max: 100000}, unique: true}
    email: {text: "customer{n:05}@{rank}.example"}
    rank: {choice: {gold: 1, silver: 3, lead: 6}, null_ratio: 0.2}
    score: {number: {min: -10, max: 10}}
    member: {boolean: 0.25}
    ident: {uuid: true}
    born: {date: {from: 1950-01-01, to: 2010-01-01}}
    joined: {timestamp: {from: 2020-01-01, to: 2025-01-01}}
    seen: {timestamp: {after: joined, within: 30 days}}
    boss: {reference: customers, null_ratio: 0.1}
    settings: {choice: [{theme: dark}, {theme: light, size: 2}]}
- table: passports
  rows: 300
  key: [customer]
  generate:
    customer: {reference: customers, unique: true}
"""
TABLES = ("customers", "orders", "lines", "passports")


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        connection.execute(SCHEMA)
        yield connection


@pytest.fixture
def seeds(tmp_path: Path) -> Path:
    (tmp_path / "seed.yaml").write_text(MANIFEST)
    return tmp_path


def apply(connection: AutocommitConnection, folder: Path, *, scale: float = 1) -> SeedReport:
    return apply_seed(connection, folder, DEV, database="shop", now=NOW, rows_scale=scale)


def read(connection: AutocommitConnection, question: str) -> list[Any]:
    rows = connection.execute(question.encode()).fetchall()
    return [row[0] for row in rows] if rows and len(rows[0]) == 1 else rows


def hashes(connection: AutocommitConnection) -> list[str]:
    return [content_hash(connection, Relation("public", name)) for name in TABLES]


def rows_of(report: SeedReport) -> dict[str, int]:
    return {table.table.removeprefix("public."): table.rows for table in report.tables if table.loaded}


def test_rows_are_as_declared_and_refer_to_each_other(connection: AutocommitConnection, seeds: Path) -> None:
    report = apply(connection, seeds)
    assert rows_of(report) == {"customers": 500, "orders": 1000, "lines": 3000, "passports": 300}
    assert [table.file for table in report.tables] == ["generated"] * 4
    assert verify_seed(connection, seeds, DEV, database="shop").passed
    [(ids, ranks, members, low, high, bosses, own, early, late)] = read(
        connection,
        "select count(distinct id), count(rank), count(*) filter (where member), min(score), max(score), count(boss),"
        " count(*) filter (where boss = id), min(born), max(joined) from customers",
    )
    assert (ids, own) == (500, 0)
    assert 360 < ranks < 440
    assert 85 < members < 165
    assert Decimal(-10) <= low < Decimal(-8) < Decimal(8) < high < Decimal(10)
    assert 400 < bosses < 499
    assert early >= date(1950, 1, 1)
    assert late < datetime(2025, 1, 1, tzinfo=UTC)
    weights = dict(read(connection, "select rank, count(*)::int from customers group by 1 order by 2"))
    assert list(weights) == ["gold", None, "silver", "lead"]
    assert read(connection, "select email from customers order by email limit 1")[0].startswith("customer00001@")
    assert all(re.fullmatch(r"........-....-4...-[89ab]...-............", str(one))
               for one in read(connection, "select ident from customers"))  # fmt: skip
    assert read(connection, "select distinct settings from customers order by 1") == [
        {"theme": "dark"},
        {"size": 2, "theme": "light"},
    ]
    # Nobody is led in a circle: each boss came before.
    assert read(connection, "with recursive up as (select id, boss, 1 as height from customers union all select up.id,"
                " c.boss, height + 1 from up join customers c on c.id = up.boss) select count(*) > 0, max(height) < 60"
                " from up where boss is null") == [(True, True)]  # fmt: skip


def test_the_same_seed_gives_the_same_rows_and_another_number_others(
    connection: AutocommitConnection, seeds: Path
) -> None:
    apply(connection, seeds)
    first = hashes(connection)
    again = "truncate customers, orders, lines, passports; drop schema dbplatform cascade"
    connection.execute(again.encode())
    apply(connection, seeds)
    assert hashes(connection) == first
    connection.execute(again.encode())
    (seeds / "seed.yaml").write_text(f"seed: 2\n{MANIFEST}")
    apply(connection, seeds)
    assert all(one != other for one, other in zip(hashes(connection), first, strict=True))


def test_the_numbers_are_the_same_on_every_machine(connection: AutocommitConnection, seeds: Path) -> None:
    apply(connection, seeds)
    assert read(connection, "select id, score, ident::text, joined::text from customers order by email limit 1") == [
        (14780, Decimal("9.04"), "4a99913e-cc01-4a88-823e-046ef7333d0f", "2022-05-24 13:53:26.200937+00")
    ]


def test_a_larger_scale_adds_rows_and_ends_as_if_it_had_been_the_first(
    connection: AutocommitConnection, seeds: Path
) -> None:
    apply(connection, seeds, scale=20)
    whole = hashes(connection)
    connection.execute("truncate customers, orders, lines, passports; drop schema dbplatform cascade")
    apply(connection, seeds)
    before = read(connection, "select id, email, ident from customers")
    report = apply(connection, seeds, scale=20)
    assert rows_of(report) == {"customers": 10_000, "orders": 20_000, "lines": 60_000, "passports": 6_000}
    assert set(before) <= set(read(connection, "select id, email, ident from customers"))
    assert read(connection, "select count(*) from lines") == [60_000]
    # A passport of the smaller scale stays, beside those of the larger one.
    assert hashes(connection)[:3] == whole[:3]
    assert apply(connection, seeds).loaded_rows == 0
    assert plan_seed(connection, seeds, DEV, database="shop", now=NOW, rows_scale=20).pending == ()


def test_a_changed_seed_keeps_the_scale_that_it_has(connection: AutocommitConnection, seeds: Path) -> None:
    apply(connection, seeds, scale=2)
    (seeds / "seed.yaml").write_text(MANIFEST.replace("boolean: 0.25", "boolean: 0"))
    assert rows_of(apply(connection, seeds)) == {"customers": 1000}
    assert read(connection, "select count(*), bool_or(member) from customers") == [(1000, False)]


def test_without_a_key_another_scale_is_refused(connection: AutocommitConnection, seeds: Path) -> None:
    (seeds / "seed.yaml").write_text(re.sub(r"  key: .*\n", "", MANIFEST))
    apply(connection, seeds, scale=2)
    assert apply(connection, seeds).loaded_rows == 0
    with pytest.raises(SeedChanged, match="at scale 2, not 3"):
        apply(connection, seeds, scale=3)


def test_tables_that_refer_to_each_other_are_generated_together(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    connection.execute(
        "create table teams (id int primary key, captain int not null);"
        "create table people (id int primary key, team int not null references teams);"
        "alter table teams add foreign key (captain) references people"
    )
    (tmp_path / "seed.yaml").write_text(
        "tables:\n"
        "- {table: teams, rows: 10, generate: {id: {sequence: 1}, captain: {reference: people}}}\n"
        "- {table: people, rows: 100, generate: {id: {sequence: 1000}, team: {reference: teams}}}\n"
    )
    assert rows_of(apply(connection, tmp_path)) == {"teams": 10, "people": 100}
    assert verify_seed(connection, tmp_path, DEV, database="shop").passed
    assert read(connection, "select count(distinct captain) > 5 from teams") == [True]


def test_generated_rows_refer_to_rows_of_files_and_are_shifted(
    connection: AutocommitConnection, tmp_path: Path
) -> None:
    connection.execute("create table kinds (code text primary key); create table facts (kind text references kinds,"
                       " at timestamptz, day date)")  # fmt: skip
    (tmp_path / "kinds.csv").write_text('code\n"a, ""b"""\nc\n"line\nend"\n')
    (tmp_path / "seed.yaml").write_text(
        "shift: {newest: 2025-01-01, by: 1 day}\n"
        "tables:\n"
        "- {table: kinds, file: kinds.csv}\n"
        "- table: facts\n"
        "  rows: 50\n"
        "  shift: [at, day]\n"
        "  generate:\n"
        "    kind: {reference: kinds}\n"
        "    at: {timestamp: {from: 2024-12-25, to: 2025-01-01}}\n"
        "    day: {date: {from: 2024-12-31, to: 2025-01-01}}\n"
    )
    apply(connection, tmp_path)
    assert read(connection, "select count(distinct kind) from facts") == [3]
    assert read(connection, "select min(at) >= '2026-03-08', max(at) < '2026-03-15', min(day)::text from facts") == [
        (True, True, "2026-03-14")
    ]


@pytest.mark.parametrize(
    ("before", "after", "error", "says", "line"),
    [
        ("    member:", "    membr:", SeedHeaderWrong, "no column membr; it has id, email", 24),
        ("rows: 300", "rows: 501", SeedMistake, "501 rows are to have each a customer", None),
        ("    shop, nr: {reference: orders}", "    shop: {reference: orders}", SeedMistake, "2 columns of", None),
        ("max: 100000}, unique: true}", "max: 100}, unique: true}", SeedMistake, "are 100 numbers", None),
    ],
)
def test_what_cannot_be_generated_is_refused_in_one_sentence(
    connection: AutocommitConnection,
    seeds: Path,
    before: str,
    after: str,
    error: type[PlatformError],
    says: str,
    line: int | None,
) -> None:
    assert before in MANIFEST
    (seeds / "seed.yaml").write_text(MANIFEST.replace(before, after))
    with pytest.raises(error, match=says) as caught:
        apply(connection, seeds)
    assert caught.value.line == line
