"""Seeds of JSON lines and SQL, their order, circles of foreign keys, and seeds that are applied again by key."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from dbplatform.errors import PlatformError, UsageError
from dbplatform.postgres.catalog import row_count
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.seeding.apply import SeedReport, apply_seed
from dbplatform.seeding.errors import BadJson, SeedFailed, SeedForeignKeyBroken, SeedHeaderWrong, TableNotEmpty
from dbplatform.seeding.order import ForeignKey, steps
from dbplatform.seeding.plan import plan_seed
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.verify import verify_seed

NOW = datetime(2026, 3, 15, 12, tzinfo=UTC)
DEV = SeedPolicy(profile="dev", directory="seeds/dev")


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        yield connection


def apply(connection: AutocommitConnection, folder: Path, **options: Any) -> SeedReport:
    return apply_seed(connection, folder, DEV, database="air", now=NOW, **options)


def loaded(report: SeedReport) -> list[tuple[str, int, bool]]:
    return [(table.table.removeprefix("public."), table.rows, table.loaded) for table in report.tables]


def read(connection: AutocommitConnection, question: str) -> list[Any]:
    rows = connection.execute(question.encode()).fetchall()
    return [row[0] for row in rows] if rows and len(rows[0]) == 1 else rows


def test_json_lines_arrive_with_every_kind_of_value(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute(
        "create table notes (id int primary key, word text, amount numeric, at timestamptz, flag bool, doc jsonb,"
        " list text[], grid int[][], other text default 'default')"
    )
    (tmp_path / "notes.jsonl").write_text(
        '\ufeff{"id": 1, "word": "a\\tb\\\\n\\n\\"é\\u6771", "amount": 1.10, "flag": true, "doc": {"a": [1.5, null]}}\n'
        '\n{"id": 2, "list": ["NULL", null, "a\\"b\\\\c,{}", ""], "grid": [[1, 2], [3, 4]],'
        ' "at": "2024-01-01T00:00Z"}\n'
        '{"id": 3, "word": "", "doc": "text", "amount": 12345678901234567890.123456789}\n'
    )
    assert loaded(apply(connection, tmp_path)) == [("notes", 3, True)]
    assert read(connection, "select * from notes order by id") == [
        (1, 'a\tb\\n\n"é東', Decimal("1.10"), None, True, {"a": [1.5, None]}, None, None, "default"),
        (2, None, None, datetime(2024, 1, 1, tzinfo=UTC), None, None, ["NULL", None, 'a"b\\c,{}', ""], [[1, 2], [3, 4]],
         "default"),
        (3, "", Decimal("12345678901234567890.123456789"), None, None, "text", None, None, "default"),
    ]  # fmt: skip
    assert verify_seed(connection, tmp_path, DEV, database="air").passed


def test_json_lines_may_be_packed_renamed_and_shifted(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create table notes (id int, at timestamptz)")
    text = b'{"nr": 1, "when": "2026-01-01T12:00:00Z", "more": 1}\n{"nr": 2, "when": "2026-01-02T12:00:00Z"}\n'
    (tmp_path / "n.jsonl.gz").write_bytes(gzip.compress(text))
    (tmp_path / "seed.yaml").write_text(
        "shift: {newest: {file: n.jsonl.gz, column: when}, by: 1 day}\n"
        "tables:\n- {table: notes, file: n.jsonl.gz, columns: {id: nr, at: when}, shift: [at]}\n"
    )
    apply(connection, tmp_path)
    assert read(connection, "select max(at) from notes") == [NOW]


@pytest.mark.parametrize(
    ("text", "line", "error", "says"),
    [
        ('{"id": 1}\n{"id": 1,}\n', 2, BadJson, "not JSON"),
        ('{"id": 1}\n\n[1]\n', 3, BadJson, "a list is no row"),
        ('{"id": NaN}\n', 1, BadJson, "NaN is no JSON"),
        ('{"id": 1, "word": {"a": 1}}\n', 1, BadJson, "word holds an object"),
        ('{"id": 1}\n\n{"id": "two"}\n', 3, SeedFailed, 'integer: "two"'),
        ('{"id": 1, "wrod": "x"}\n', 1, SeedHeaderWrong, "no column wrod"),
        ("\n", None, BadJson, "holds no row"),
    ],
)
def test_a_mistake_in_json_lines_is_shown_with_its_line_and_leaves_nothing(
    connection: AutocommitConnection, tmp_path: Path, text: str, line: int | None, error: type[PlatformError], says: str
) -> None:
    connection.execute("create table notes (id int, word text)")
    (tmp_path / "notes.jsonl").write_text(text)
    with pytest.raises(error, match=says) as caught:
        apply(connection, tmp_path)
    assert (caught.value.file, caught.value.line) == ("notes.jsonl", line)
    assert read(connection, "select count(*) from notes") == [0]


def test_a_script_fills_its_tables_once_and_is_verified(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create table a (id int primary key, w text); create table b (id int references a)")
    (tmp_path / "fill.sql").write_text(
        "-- words; with 'quotes' and $$\ninsert into a values (1, 'x;y'), (2, $q$it's$q$);\n"
        "do $$ begin insert into b select id from a; end $$;\n"
    )
    (tmp_path / "seed.yaml").write_text("tables:\n- {table: b, file: fill.sql}\n- {table: a, file: fill.sql}\n")
    assert loaded(apply(connection, tmp_path)) == [("b", 2, True), ("a", 2, True)]
    assert loaded(apply(connection, tmp_path)) == [("b", 2, False), ("a", 2, False)]
    assert verify_seed(connection, tmp_path, DEV, database="air").passed
    connection.execute("create table c (id int)")
    (tmp_path / "seed.yaml").write_text("tables:\n- {table: a, file: fill.sql}\n- {table: c, file: fill.sql}\n")
    with pytest.raises(UsageError, match=r"fill\.sql has run already.*public\.c"):
        apply(connection, tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("insert into a values (1);\ncommit;\ninsert into a values (2);\n", None, "transaction"),
        ("insert into a values (1);\n\ninsert into a values ('one');\n", 3, "one"),
        ("insert into a values (1);\ninsert into missing values (1);\n", 2, "missing"),
        ("insert into a values (1);\ncopy a from stdin;\n1\n", None, "syntax|COPY"),
        ("insert into a values (1);\n\\echo x\n", 2, "syntax"),
    ],
)
def test_a_script_that_fails_or_would_commit_leaves_nothing(
    connection: AutocommitConnection, tmp_path: Path, text: str, line: int | None, says: str
) -> None:
    connection.execute("create table a (id int)")
    (tmp_path / "a.sql").write_text(text)
    with pytest.raises(SeedFailed, match=says) as caught:
        apply(connection, tmp_path)
    assert caught.value.file == "a.sql"
    if line is not None:
        assert caught.value.line == line
    assert read(connection, "select count(*) from a") == [0]
    assert read(connection, "select count(*) from dbplatform.seed") == [0]


def files(folder: Path, **texts: str) -> Path:
    for name, text in texts.items():
        (folder / f"{name}.csv").write_text(text)
    return folder


def test_tables_are_loaded_in_the_order_of_their_foreign_keys(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute(
        "create table z_parent (a int, b int, primary key (a, b));"
        "create table m_child (id int primary key, a int, b int, foreign key (a, b) references z_parent);"
        "create table a_grandchild (child int references m_child, up int references a_grandchild (id), id int unique)"
    )
    files(tmp_path, z_parent="a,b\n1,2\n", m_child="id,a,b\n5,1,2\n", a_grandchild="child,up,id\n5,2,1\n5,,2\n")
    assert [name for name, _, _ in loaded(apply(connection, tmp_path))] == ["z_parent", "m_child", "a_grandchild"]


@pytest.mark.parametrize("kind", ["", "deferrable", "deferrable initially deferred"])
@pytest.mark.parametrize("key", [None, "id"])
def test_a_circle_of_foreign_keys_is_loaded_whole_and_the_constraints_stay(
    connection: AutocommitConnection, tmp_path: Path, kind: str, key: str | None
) -> None:
    connection.execute(
        f"create table teams (id int primary key, captain int not null);"
        f"create table people (id int primary key, team int not null references teams {kind});"
        f"alter table teams add constraint led foreign key (captain) references people {kind}".encode()
    )
    described = "select conname, condeferrable, condeferred, convalidated from pg_constraint where contype = 'f'"
    before = sorted(read(connection, described))
    files(tmp_path, teams="id,captain\n1,10\n2,20\n", people="id,team\n10,1\n20,2\n")
    keyed = f", key: [{key}]" if key else ""
    manifest = f"tables:\n- {{table: teams, file: teams.csv{keyed}}}\n- {{table: people, file: people.csv{keyed}}}\n"
    (tmp_path / "seed.yaml").write_text(manifest)
    assert loaded(apply(connection, tmp_path)) == [("teams", 2, True), ("people", 2, True)]
    assert sorted(read(connection, described)) == before
    found = verify_seed(connection, tmp_path, DEV, database="air")
    assert found.passed
    assert len(found.references) == 2


def test_a_circle_with_a_broken_reference_leaves_nothing(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute(
        "create table teams (id int primary key, captain int); create table people (id int primary key, team int"
        " references teams); alter table teams add constraint led foreign key (captain) references people"
    )
    files(tmp_path, teams="id,captain\n1,99\n", people="id,team\n10,1\n")
    with pytest.raises(SeedForeignKeyBroken, match=r"led.*99") as caught:
        apply(connection, tmp_path)
    assert caught.value.file == "teams.csv"
    assert [row_count(connection, Relation("public", name)) for name in ("teams", "people")] == [0, 0]
    assert read(connection, "select bool_or(condeferrable) from pg_constraint") == [False]


def names(*words: str) -> list[list[Relation]]:
    return [[Relation("public", word)] for word in words]


def test_steps_keep_the_given_order_where_no_key_decides_and_join_circles() -> None:
    def key(child: str, parent: str) -> ForeignKey:
        return ForeignKey(
            name="k", deferrable=False, table=Relation("public", child), parent=Relation("public", parent)
        )

    assert steps(names("b", "a", "c"), []) == names("b", "a", "c")
    assert steps(names("b", "a", "c"), [key("b", "c")]) == names("c", "b", "a")
    circle = [key("a", "b"), key("b", "c"), key("c", "a"), key("d", "a")]
    assert [[one.name for one in step] for step in steps(names("d", "a", "b", "c"), circle)] == [["a", "b", "c"], ["d"]]


KEYED = "tables:\n- {table: items, file: items.csv, key: [id]}\n"


def test_a_changed_seed_with_a_key_is_applied_again(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create table items (id int primary key, name text); insert into items values (9, 'my own')")
    (tmp_path / "seed.yaml").write_text(KEYED)
    files(tmp_path, items="id,name\n1,a\n2,b\n")
    assert loaded(apply(connection, tmp_path)) == [("items", 2, True)]
    untouched = read(connection, "select xmin::text from items where id = 1")
    assert loaded(apply(connection, tmp_path)) == [("items", 2, False)]
    files(tmp_path, items="id,name\n1,a\n2,B\n3,c\n")
    document = plan_seed(connection, tmp_path, DEV, database="air", now=NOW).as_json()
    assert document["tables"][0]["status"] == "pending"
    assert loaded(apply(connection, tmp_path)) == [("items", 3, True)]
    assert read(connection, "select * from items order by id") == [(1, "a"), (2, "B"), (3, "c"), (9, "my own")]
    assert read(connection, "select xmin::text from items where id = 1") == untouched
    assert read(connection, "select rows from dbplatform.seed") == [3]


@pytest.mark.parametrize(
    ("text", "says"),
    [("id,name\n1,a\n1,b\n", r"\(id\) = \(1\)"), ("name\na\n", "named as key or password")],
)
def test_a_seed_whose_key_does_not_fit_is_refused(
    connection: AutocommitConnection, tmp_path: Path, text: str, says: str
) -> None:
    connection.execute("create table items (id int primary key, name text)")
    (tmp_path / "seed.yaml").write_text(KEYED)
    files(tmp_path, items=text)
    with pytest.raises(PlatformError, match=says):
        apply(connection, tmp_path)
    assert read(connection, "select count(*) from items") == [0]


def test_a_bad_value_of_a_keyed_seed_is_shown_with_its_line(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create table items (id int primary key, name text not null)")
    (tmp_path / "seed.yaml").write_text(KEYED)
    files(tmp_path, items="id,name\n1,a\ntwo,b\n")
    with pytest.raises(SeedFailed, match="two") as caught:
        apply(connection, tmp_path)
    assert caught.value.line == 3


def test_without_a_key_rows_that_are_there_are_refused(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create table items (id int primary key, name text); insert into items values (9, 'x')")
    for name, text in (("items.jsonl", '{"id": 1}'), ("items.sql", "insert into items values (1)")):
        (tmp_path / name).write_text(text)
        with pytest.raises(TableNotEmpty, match="name the key"):
            apply(connection, tmp_path)
        (tmp_path / name).unlink()


def test_a_record_made_before_keys_existed_still_counts(connection: AutocommitConnection, tmp_path: Path) -> None:
    connection.execute("create table items (id int primary key, name text)")
    files(tmp_path, items="id,name\n1,a\n")
    apply(connection, tmp_path)
    # What version 0.1.0.dev0 recorded for this file, before there were keys.
    assert read(connection, "select sha256 from dbplatform.seed") == [
        "bf1f31909e01876998ff6c62aa0efa7655e77213fc6d241d07b94bf1bb71176e",
    ]


def test_sql_is_composed_from_identifiers(connection: AutocommitConnection, tmp_path: Path) -> None:
    name = 'odd "name; drop'
    table = sql.Identifier("public", name)
    connection.execute(sql.SQL("create table {} ({} int primary key)").format(table, sql.Identifier("a b")))
    (tmp_path / "x.csv").write_text("a b\n1\n")
    (tmp_path / "seed.yaml").write_text('tables:\n- {table: \'"odd ""name; drop"\', file: x.csv, key: [\'"a b"\']}\n')
    assert apply(connection, tmp_path).loaded_rows == 1
