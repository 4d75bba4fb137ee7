"""Bulk load on a real server: every value arrives as it was given, whatever kind the rows are of.

One module, because each kind of rows is held against the same table of every type.
"""

from __future__ import annotations

import enum
import json
import math
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from ipaddress import IPv4Address
from typing import Any

import pandas as pd
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import sql

from dbplatform.errors import PlatformError
from dbplatform.postgres.catalog import TableMissing
from dbplatform.postgres.connection import AutocommitConnection, Target, connect
from dbplatform.postgres.identifiers import Relation
from dbplatform.progress import Progress, listening
from dbplatform.seeding import batches
from dbplatform.seeding.bulk import Upserted, advance_sequences, copy_rows, upsert_rows
from dbplatform.seeding.errors import KeyNotUnique, KeyTwice, LoadFailed, NoKey, RowsWrong

TYPES = """
    create type mood as enum ('calm', 'it''s "so, so"');
    create table kinds (
        id int primary key, small smallint, big bigint, real_ real, double_ double precision, exact numeric,
        price numeric(12, 2), flag boolean, words text, short varchar(50), bytes bytea, day date, hour time,
        moment timestamptz, clock timestamp, length interval, ident uuid, doc json, docb jsonb, numbers int[],
        texts text[], feeling mood, address inet);
"""


class Mood(enum.Enum):
    calm = 1


@pytest.fixture
def connection(database: Target) -> Iterator[AutocommitConnection]:
    with connect(database, work="test") as connection:
        connection.execute("create table orders (id int primary key, name text, amount numeric, note json)")
        connection.execute(TYPES)
        yield connection


def read(connection: psycopg.Connection[Any], question: str | sql.Composed) -> list[Any]:
    rows = connection.execute(question.encode() if isinstance(question, str) else question).fetchall()
    return [row[0] for row in rows] if rows and len(rows[0]) == 1 else rows


def stored(connection: psycopg.Connection[Any], *columns: str) -> list[Any]:
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    return read(connection, sql.SQL("select {} from kinds order by id").format(names))


ROWS = [
    {"id": 1, "name": "pen", "amount": Decimal("1.50")},
    {"id": 2, "name": "", "amount": None},
    {"id": 3, "name": None, "amount": Decimal("0")},
]


def frames() -> dict[str, Any]:
    """The same rows in each kind that is taken."""
    table = pa.Table.from_pylist(
        ROWS, pa.schema({"id": pa.int32(), "name": pa.string(), "amount": pa.decimal128(8, 2)})
    )
    return {
        "mappings": list(ROWS),
        "tuples": [tuple(row.values()) for row in ROWS],
        "generator": (row for row in ROWS),
        "pandas": pd.DataFrame(ROWS),
        "pandas, objects": pd.DataFrame(ROWS, dtype=object),
        "pandas, Arrow": table.to_pandas(types_mapper=pd.ArrowDtype),
        "table": table,
        "table of chunks": pa.concat_tables([table.slice(0, 1), table.slice(1)]),
        "batch": table.to_batches()[0],
        "reader": table.to_reader(max_chunksize=1),
    }


@pytest.mark.parametrize("kind", list(frames()))
def test_every_kind_of_rows_arrives_the_same(connection: AutocommitConnection, kind: str) -> None:
    columns = ["id", "name", "amount"] if kind == "tuples" else None
    assert copy_rows(connection, "orders", frames()[kind], columns=columns) == 3
    assert read(connection, "select id, name, amount from orders order by id") == [tuple(row.values()) for row in ROWS]


VALUES: list[tuple[str, list[Any]]] = [
    ("small", [-32768, 32767, None]),
    ("big", [-(2**63), 2**63 - 1, 0]),
    ("real_", [0.5, None, math.inf]),
    ("double_", [0.1, 5e-324, -math.inf, 1.7976931348623157e308, None]),
    ("exact", [Decimal("1.10"), Decimal("-123456789012345678901234567890.000000001"), None, 2**70, Decimal("1E+30")]),
    ("price", [Decimal("9999999999.99"), 1, None]),
    ("flag", [True, False, None]),
    ("words", ["", None, "NULL", "\\N", "\\.", "a\n\\.\nb", 'say "hi", then\r\nleave\t', "Zürich 東京 🛫", " "]),
    ("bytes", [b"", b"\x00\xff\\x41", None]),
    ("day", [date(1, 1, 1), date(9999, 12, 31), None]),
    ("hour", [time(23, 59, 59, 999999), None]),
    (
        "moment",
        [datetime(2024, 2, 29, 1, 2, 3, 4, UTC), datetime(1900, 1, 1, tzinfo=timezone(timedelta(hours=5.5))), None],
    ),
    ("clock", [datetime.fromisoformat("2024-02-29T01:02:03.000004"), None]),
    ("length", [timedelta(days=3, microseconds=7), timedelta(seconds=-1), None]),
    ("ident", [uuid.UUID(int=7), None]),
    ("docb", [{"a": [1, None, 'x\n"y"']}, [1, "2"], None]),
    ("numbers", [[1, None, 3], [], None]),
    ("texts", [["", "NULL", 'a"b\\c,{}', None], None]),
    ("address", [IPv4Address("10.0.0.1"), None]),
]


@pytest.mark.parametrize("as_frame", [False, True], ids=["rows", "pandas"])
@pytest.mark.parametrize(("column", "values"), VALUES, ids=[name for name, _ in VALUES])
def test_a_value_of_each_type_arrives_as_it_was_given(
    connection: AutocommitConnection, column: str, values: list[Any], as_frame: bool
) -> None:
    rows: Any = [{"id": i, column: value} for i, value in enumerate(values)]
    if as_frame:
        rows = pd.DataFrame({"id": range(len(values)), column: pd.Series(values, dtype=object)})
    copy_rows(connection, "kinds", rows)
    assert stored(connection, column) == values


def test_nan_is_a_number_in_rows_and_arrow_and_missing_in_pandas(connection: AutocommitConnection) -> None:
    copy_rows(connection, "kinds", [(1, math.nan)], columns=["id", "double_"])
    copy_rows(connection, "kinds", pa.table({"id": [2, 3], "double_": [math.nan, None]}))
    copy_rows(connection, "kinds", pd.DataFrame({"id": [4], "double_": [math.nan]}))
    copy_rows(connection, "kinds", [(5, Decimal("NaN"))], columns=["id", "double_"])
    assert [None if value is None else math.isnan(value) for value in stored(connection, "double_")] == [
        True, True, None, None, True,
    ]  # fmt: skip


ARROW: list[tuple[str, pa.Array, list[Any]]] = [
    ("big", pa.array([1, None], pa.uint32()), [1, None]),
    ("double_", pa.array([1.5], pa.float16()), [1.5]),
    ("exact", pa.array([Decimal("1.10"), None]), [Decimal("1.10"), None]),
    ("words", pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
    ("words", pa.array(["ä"], pa.string_view()), ["ä"]),
    ("words", pa.array(["ä"], pa.large_string()), ["ä"]),
    ("words", pa.array([None, None]), [None, None]),
    ("bytes", pa.array([b"\x00a", None], pa.binary(2)), [b"\x00a", None]),
    ("day", pa.array([date(2024, 1, 2)], pa.date64()), [date(2024, 1, 2)]),
    ("moment", pa.array([0, None], pa.timestamp("s", "America/New_York")), [datetime(1970, 1, 1, tzinfo=UTC), None]),
    ("clock", pa.array([1_000], pa.timestamp("ns")), [datetime.fromisoformat("1970-01-01T00:00:00.000001")]),
    ("hour", pa.array([time(1, 2)], pa.time32("ms")), [time(1, 2)]),
    ("length", pa.array([timedelta(days=2), None], pa.duration("ms")), [timedelta(days=2), None]),
    ("length", pa.array([1_500], pa.duration("ns")), [timedelta(microseconds=1)]),
    ("ident", pa.array([uuid.UUID(int=7).bytes, None], pa.uuid()), [uuid.UUID(int=7), None]),
    ("docb", pa.array([{"a": [1]}, None]), [{"a": [1]}, None]),
    ("docb", pa.array(['{"a": 1}'], pa.json_()), [{"a": 1}]),
    ("texts", pa.array([["x", None], None], pa.large_list(pa.string())), [["x", None], None]),
    ("numbers", pa.array([[1, 2]], pa.list_(pa.int8(), 2)), [[1, 2]]),
]


@pytest.mark.parametrize(("column", "array", "expected"), ARROW, ids=[f"{name}-{a.type}" for name, a, _ in ARROW])
def test_arrow_types_arrive(
    connection: AutocommitConnection, column: str, array: pa.Array, expected: list[Any]
) -> None:
    copy_rows(connection, "kinds", pa.table({"id": range(len(array)), column: array}))
    assert stored(connection, column) == expected


def test_pandas_own_types_arrive(connection: AutocommitConnection) -> None:
    frame = pd.DataFrame(
        {
            "id": [1, 2],
            "big": pd.array([2**62, None], "Int64"),
            "flag": pd.array([True, None], "boolean"),
            "words": pd.Categorical(["b", None]),
            "moment": pd.to_datetime(["2024-01-01 12:00", None], utc=True),
            "length": pd.to_timedelta(["2 days", None]),
        }
    )
    copy_rows(connection, "kinds", frame.astype({"length": "timedelta64[ns]"}))
    assert read(connection, "select big, flag, words, moment, length from kinds order by id") == [
        (2**62, True, "b", datetime(2024, 1, 1, 12, tzinfo=UTC), timedelta(days=2)),
        (None, None, None, None, None),
    ]


def test_a_column_of_mixed_values_is_written_value_by_value(connection: AutocommitConnection) -> None:
    copy_rows(connection, "kinds", [(1, 2.5), (2, Decimal("3.10")), (3, "4"), (4, 2**80)], columns=["id", "exact"])
    assert stored(connection, "exact") == [Decimal("2.5"), Decimal("3.10"), Decimal(4), Decimal(2**80)]
    copy_rows(connection, "kinds", [{"id": 5, "feeling": 'it\'s "so, so"'}, {"id": 6, "feeling": Mood.calm}])
    assert stored(connection, "feeling")[-2:] == ['it\'s "so, so"', "calm"]


SCALARS = st.one_of(
    st.none(),
    st.text(st.characters(exclude_characters="\0", codec="utf-8")),
    st.sampled_from(["\\.", "\n\\.\n", '"', ",", "\\N", "", "\r\n"]),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            SCALARS,
            st.none() | st.floats(allow_nan=False),
            st.none() | st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40),
            st.none() | st.binary(),
            st.none() | st.lists(SCALARS),
            st.none() | st.datetimes(min_value=datetime.fromisoformat("0001-01-02"), timezones=st.just(UTC)),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_value_comes_back(connection: AutocommitConnection, values: list[tuple[Any, ...]]) -> None:
    names = ["words", "double_", "exact", "bytes", "texts", "moment"]
    rows = [(i, *row) for i, row in enumerate(values)]
    connection.execute("truncate kinds")
    copy_rows(connection, "kinds", rows, columns=["id", *names])
    assert stored(connection, *names) == values
    text = [row[0] for row in values]
    connection.execute("truncate kinds")
    copy_rows(connection, "kinds", pa.table({"id": range(len(text)), "words": pa.array(text, pa.string())}))
    assert stored(connection, "words") == text


def test_json_is_written_as_json_and_text_is_taken_as_json_already(connection: AutocommitConnection) -> None:
    copy_rows(
        connection,
        "kinds",
        [(1, {"a": 1.5}), (2, '{"b":2}'), (3, [date(2024, 1, 2)]), (4, None), (5, True)],
        columns=["id", "doc"],
    )
    copy_rows(connection, "kinds", pd.DataFrame({"id": [6, 7], "doc": [{"a": 1}, {"b": 2}]}))
    assert stored(connection, "doc") == [{"a": 1.5}, {"b": 2}, ["2024-01-02"], None, True, {"a": 1}, {"b": 2}]


def test_what_is_left_out_gets_its_default(connection: AutocommitConnection) -> None:
    connection.execute("create table things (id int generated always as identity, name text, twice text default 'x',"
                       " upper_ text generated always as (upper(name)) stored)")  # fmt: skip
    assert copy_rows(connection, "things", [{"name": "a"}]) == 1
    assert copy_rows(connection, "things", [("b", "y")]) == 1
    assert read(connection, "select * from things order by 1") == [(1, "a", "x", "A"), (2, "b", "y", "B")]


def test_null_and_an_empty_text_stay_apart_in_a_table_of_one_column(connection: AutocommitConnection) -> None:
    connection.execute("create table loose (word text)")
    copy_rows(connection, "loose", [(None,), ("",), ("\\.",), (None,)])
    assert read(connection, "select word from loose") == [None, "", "\\.", None]


@pytest.mark.parametrize(
    ("column", "rises"),
    [
        ([[1, 2], [], [3, 9]], True),
        ([[1, 2], [2, 3]], False),
        ([[2, 1]], False),
        ([[1, None]], False),
        ([["a", "b"]], False),
        ([[5]], True),
    ],
)
def test_rows_whose_key_only_rises_need_no_sorting(column: list[list[Any]], rises: bool) -> None:
    ascent = batches.Ascent("id")
    for chunk in column:
        ascent.saw(pa.array(chunk, pa.string() if "a" in chunk else pa.int32()))
    assert ascent.holds is rises


def test_rows_in_any_order_of_their_key_are_upserted(connection: AutocommitConnection) -> None:
    for ids in ([3, 1, 2], [1, 2, 3, 4], [4, 3]):
        upsert_rows(connection, "orders", [{"id": i, "name": str(len(ids))} for i in ids])
    assert read(connection, "select id, name from orders order by id") == [(1, "4"), (2, "4"), (3, "2"), (4, "2")]


def test_upsert_leaves_the_session_as_it_was(connection: AutocommitConnection) -> None:
    with connection.transaction():
        upsert_rows(connection, "orders", [{"id": 1}])
        assert read(connection, "show work_mem") == ["4MB"]
        connection.execute("set local work_mem = '200MB'")
        upsert_rows(connection, "orders", [{"id": 1}])
        assert read(connection, "show work_mem") == ["200MB"]


def test_no_rows_are_no_rows(connection: AutocommitConnection) -> None:
    assert copy_rows(connection, "orders", []) == 0
    assert copy_rows(connection, "orders", pd.DataFrame({"id": []})) == 0
    assert upsert_rows(connection, "orders", pa.table({"id": pa.array([], pa.int32())})) == Upserted(rows=0, written=0)


@pytest.mark.parametrize(
    ("rows", "columns", "error", "says"),
    [
        ([{"id": 1, "nam": "x"}], None, RowsWrong, "has no column 'nam'; it has id, name"),
        ([{"id": 1}, {"name": "x"}], None, RowsWrong, "A row has no 'id'"),
        ([(1, "x"), (1,)], ["id", "name"], RowsWrong, "not of one kind: one has 1 values, another 2"),
        ([(1, "x"), {"id": 2, "name": "y"}], ["id", "name"], RowsWrong, "A row has no 0"),
        ([{"id": 1, "name": "x"}, (2, "y")], ["id", "name"], RowsWrong, "not of one kind"),
        ([(1,)], ["id", "name"], RowsWrong, "1 values for 2 columns"),
        ([(1, "x")], ["id"], RowsWrong, "2 values for 1 columns"),
        ({"id": 1}, None, RowsWrong, "cannot be read from a dict"),
        (5, None, RowsWrong, "cannot be read from a int"),
        ([(1, object())], ["id", "name"], RowsWrong, "The column name holds what cannot be loaded"),
        (pd.DataFrame([[1, 2]], columns=["id", "id"]), None, RowsWrong, "twice"),
        (pd.DataFrame({"id": [1]}), ["id", "name"], RowsWrong, "no column 'name'; they have id"),
        ([(1,), ("one",)], ["id"], LoadFailed, 'integer: "one"'),
        ([(1,), (1,)], ["id"], LoadFailed, "duplicate key"),
        ([(1, "a\0b")], ["id", "name"], LoadFailed, "0x00"),
    ],
)
def test_wrong_rows_are_refused_in_one_sentence_and_leave_nothing(
    connection: AutocommitConnection, rows: Any, columns: list[str] | None, error: type[PlatformError], says: str
) -> None:
    with pytest.raises(error) as caught:
        copy_rows(connection, "orders", rows, columns=columns)
    assert says in str(caught.value)
    assert caught.value.hint
    assert read(connection, "select count(*) from orders") == [0]


def test_an_interruption_ends_a_load_that_waits_for_another_session(
    database: Target, connection: AutocommitConnection
) -> None:
    def rows() -> Iterator[tuple[int, str]]:
        yield from ((n, "x" * 50_000) for n in range(batches._FIRST_ROWS))
        raise KeyboardInterrupt  # while the first chunk is under way: more than a socket holds

    with psycopg.connect(database.url) as other:
        other.execute("insert into orders (id) values (0)")
        with pytest.raises(KeyboardInterrupt):
            copy_rows(connection, "orders", rows(), columns=["id", "name"])
        assert read(connection, "select count(*) from orders") == [0]


def test_a_table_that_is_not_there_is_named(connection: AutocommitConnection) -> None:
    with pytest.raises(TableMissing, match=r"public\.order"):
        copy_rows(connection, "order", [{"id": 1}])
    with pytest.raises(RowsWrong, match="is not a name"):
        copy_rows(connection, "no name", [{"id": 1}])


def test_copy_joins_the_transaction_of_the_caller(database: Target, connection: AutocommitConnection) -> None:
    with psycopg.connect(database.url) as mine:
        mine.execute("insert into orders values (1)")
        with pytest.raises(LoadFailed):
            copy_rows(mine, "orders", [{"id": 1}])
        copy_rows(mine, "orders", [{"id": 2}])
        upsert_rows(mine, "orders", [{"id": 3}])
        assert read(connection, "select count(*) from orders") == [0]
        mine.rollback()
        copy_rows(mine, "orders", [{"id": 4}])
        assert read(connection, "select id from orders") == [4]


def test_upsert_inserts_updates_and_leaves_alone(connection: AutocommitConnection) -> None:
    copy_rows(connection, "orders", [(1, "a", Decimal("1.0")), (2, "b", None)], columns=["id", "name", "amount"])
    before = read(connection, "select id, xmin::text from orders order by id")
    rows = [
        {"id": 1, "name": "a", "amount": Decimal("1.0"), "note": None},
        {"id": 2, "name": None, "amount": Decimal(2), "note": {"x": 1}},
        {"id": 3, "name": "c", "amount": None, "note": None},
    ]
    assert upsert_rows(connection, "orders", rows) == Upserted(rows=3, written=2)
    assert read(connection, "select * from orders order by id") == [
        (1, "a", Decimal("1.0"), None),
        (2, None, Decimal(2), {"x": 1}),
        (3, "c", None, None),
    ]
    assert read(connection, "select id, xmin::text from orders order by id")[0] == before[0]
    again = upsert_rows(connection, "orders", pd.DataFrame(rows))
    assert (again.written, again.unchanged) == (0, 3)


def test_upsert_writes_what_is_equal_but_not_the_same(connection: AutocommitConnection) -> None:
    copy_rows(connection, "orders", [(1, Decimal("1.0"))], columns=["id", "amount"])
    assert upsert_rows(connection, "orders", [{"id": 1, "amount": Decimal("1.00")}]).written == 1
    assert str(read(connection, "select amount from orders")[0]) == "1.00"


def test_upsert_can_keep_columns_or_whole_rows(connection: AutocommitConnection) -> None:
    copy_rows(connection, "orders", [(1, "mine")], columns=["id", "name"])
    new = [{"id": 1, "name": "theirs", "amount": 5}, {"id": 2, "name": "new", "amount": 6}]
    assert upsert_rows(connection, "orders", new, on_conflict="nothing").written == 1
    assert upsert_rows(connection, "orders", new, keep=["name"]).written == 1
    assert read(connection, "select id, name, amount from orders order by id") == [(1, "mine", 5), (2, "new", 6)]


def test_upsert_goes_by_any_unique_key_and_leaves_other_columns(connection: AutocommitConnection) -> None:
    connection.execute("create table prices (shop int, item text, price int, seen int default 1, unique (shop, item));"
                       "insert into prices values (1, 'pen', 5, 7)")  # fmt: skip
    rows = [{"shop": 1, "item": "pen", "price": 6}, {"shop": 2, "item": "pen", "price": 6}]
    assert upsert_rows(connection, "prices", rows, key=["shop", "item"]).written == 2
    assert read(connection, "select * from prices order by shop") == [(1, "pen", 6, 7), (2, "pen", 6, 1)]


def test_upsert_works_on_a_partitioned_table_with_an_identity(connection: AutocommitConnection) -> None:
    connection.execute(
        "create table logs (id int generated always as identity, at date, word text, primary key (id, at))"
        " partition by range (at);"
        "create table logs_1 partition of logs for values from ('2024-01-01') to ('2025-01-01')"
    )
    rows = [{"id": 1, "at": date(2024, 5, 1), "word": "a"}]
    assert [upsert_rows(connection, "logs", rows).written for _ in range(2)] == [1, 0]
    assert upsert_rows(connection, "logs", [rows[0] | {"word": "b"}]).written == 1
    advance_sequences(connection, Relation("public", "logs"), ["id"])
    connection.execute("insert into logs (at, word) values ('2024-06-01', 'c')")
    assert read(connection, "select id, word from logs order by id") == [(1, "b"), (2, "c")]


@pytest.mark.parametrize(
    ("key", "rows", "error", "says"),
    [
        (None, [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], KeyTwice, "(id) = (1)"),
        (["name"], [{"id": 1, "name": "x"}], KeyNotUnique, "covers exactly name"),
        (["name"], [{"id": 1}], RowsWrong, "no column 'name'"),
    ],
)
def test_a_key_that_cannot_work_is_refused_and_leaves_nothing(
    connection: AutocommitConnection, key: list[str] | None, rows: Any, error: type[PlatformError], says: str
) -> None:
    with pytest.raises(error) as caught:
        upsert_rows(connection, "orders", rows, key=key)
    assert says in str(caught.value)
    assert read(connection, "select count(*) from orders") == [0]
    assert read(connection, "select count(*) from pg_class where relname like 'rows\\_%'") == [0]


def test_a_table_without_a_primary_key_wants_a_key(connection: AutocommitConnection) -> None:
    connection.execute("create table loose (id int)")
    with pytest.raises(NoKey, match=r"public\.loose"):
        upsert_rows(connection, "loose", [{"id": 1}])


@pytest.mark.parametrize("call", [copy_rows, upsert_rows])
def test_the_table_is_locked_as_by_an_insert(database: Target, connection: AutocommitConnection, call: Any) -> None:
    with psycopg.connect(database.url) as mine:
        mine.execute("select 1")
        call(mine, "orders", [{"id": 1}])
        modes = connection.execute(
            "select mode from pg_locks where relation = 'orders'::regclass and pid = %s", (mine.info.backend_pid,)
        ).fetchall()
        assert "RowExclusiveLock" in {mode for (mode,) in modes}
        assert {mode for (mode,) in modes} <= {"AccessShareLock", "RowExclusiveLock"}


def test_rows_stream_in_chunks_that_fit_their_size(connection: AutocommitConnection) -> None:
    heard: list[Progress] = []
    made = 0

    def rows() -> Iterator[tuple[int, str]]:
        nonlocal made
        for made in range(600):
            yield made, "x" * (100_000 if made < 512 else 10)

    with listening(heard.append):
        assert copy_rows(connection, "orders", rows(), columns=["id", "name"]) == 600
    steps = [fact.done for fact in heard]
    assert steps[0] == batches._FIRST_ROWS
    assert steps[1] - steps[0] == batches._CHUNK_BYTES // 100_000 - (batches._CHUNK_BYTES % 100_000 < 1000)
    assert heard[-1].total == 600


def test_a_session_of_another_date_style_and_encoding_reads_the_same(database: Target) -> None:
    with psycopg.connect(database.url, autocommit=True) as mine:
        mine.execute("create table t (day date, moment timestamptz, word text, length interval)")
        mine.execute("set datestyle = 'SQL, DMY'; set timezone = 'Asia/Tokyo'; set client_encoding = 'LATIN1';"
                     "set intervalstyle = 'iso_8601'")  # fmt: skip
        row = (date(2024, 2, 3), datetime(2024, 2, 3, 4, tzinfo=UTC), "né", timedelta(hours=-1))
        copy_rows(mine, "t", [row])
        mine.execute("set timezone = 'UTC'; set datestyle = 'ISO'; set intervalstyle = 'postgres'")
        assert mine.execute("select * from t").fetchall() == [row]


def test_numbers_in_json_keep_their_digits(connection: AutocommitConnection) -> None:
    copy_rows(connection, "kinds", [(1, {"n": 0.1, "big": 2**60})], columns=["id", "docb"])
    assert json.dumps(stored(connection, "docb")[0], sort_keys=True) == '{"big": 1152921504606846976, "n": 0.1}'
