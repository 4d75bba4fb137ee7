"""Partitions that have not changed are not read again, and whatever happens between two runs, no change is missed."""

from __future__ import annotations

import os
import re
import signal
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.server import EmbeddedServer
from dbplatform.quality import record
from dbplatform.quality.engine import check_table, partitions_of
from dbplatform.quality.examination import explained
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import TableResult
from dbplatform.quality.streaming.reading import streamed_each
from dbplatform.quality.ways import PartitionWays
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.postgres.quality_support import emptied, kept_database

__all__ = ["emptied", "kept_database"]

TABLE = """
    create table kinds (kind text primary key);
    insert into kinds values ('a'), ('b'), ('c');
    create table t (id int not null, at timestamptz not null, n int, price numeric(10, 2), kind text, score float8)
        partition by range (at);
    create table t_1 partition of t for values from ('2024-01-01') to ('2024-02-01');
    create table t_2 partition of t for values from ('2024-02-01') to ('2024-03-01');
    create table t_3 partition of t for values from ('2024-03-01') to ('2024-04-01');
    create table t_rest partition of t default;
    insert into t
    select i, timestamptz '2024-01-01' + i * interval '2 hours', case when i % 50 = 0 then null else i % 30 end,
           i * 1.37, (array['a', 'b', 'c', 'x'])[1 + (i % 4 = 0)::int + (i % 97 = 0)::int * 2], sqrt(i)
    from generate_series(1, 1300) i;
"""
CHECKS: list[Any] = [
    {"not_null": "n"},
    {"not_null": "at"},
    {"range": {"column": "n", "min": 1, "max": 28}},
    {"range": {"column": "at", "min": "2024-01-01 03:00", "max": "2024-04-15"}},
    {"accepted_values": {"column": "kind", "values": ["a", "b"]}},
    {"matches": {"column": "kind", "regex": "^[a-w]$"}},
    {"length": {"column": "kind", "min": 1, "max": 1}},
    {"null_ratio": {"column": "n", "max": 0.001}},
    {"mean": {"column": "n", "min": 0}},
    {"mean": {"column": "price", "min": 0, "where": "kind = 'a'"}},
    {"sum": {"column": "n", "min": 0}},
    {"sum": {"column": "price", "min": 0, "name": "sum_price"}},
    {"sum": {"column": "n", "min": 0, "where": "id > 100000", "name": "sum_of_none"}},
    {"row_count": {"min": 1}},
    {"row_count": {"min": 1, "where": "n > 10", "name": "count_some"}},
    {"freshness": {"column": "at", "max_age": "50 years"}},
    {"unique": ["id", "at"]},
    {"relationship": {"column": "kind", "to": "kinds.kind"}},
    {"unique": "id"},
    {"mean": {"column": "score", "min": 0}},
    {"sql": {"name": "query", "rows": "select * from t where n = 29"}},
]
FEW: list[Any] = [{"not_null": "n"}, {"sum": {"column": "price", "min": 0}}, {"row_count": {"min": 1}}]
ALL_READ, ONE_READ, NONE_READ = 4, 1, 0


@dataclass
class Checked:
    """A table under checks: each run is compared with one that reads everything."""

    target: Target
    ledger: Ledger
    unchanged: str = "proven"
    checks: list[Any] = field(default_factory=lambda: list(FEW))
    mask: dict[str, str] = field(default_factory=dict)

    @property
    def policy(self) -> TablePolicy:
        return TablePolicy.model_validate(
            {"table": "t", "unchanged": self.unchanged, "mask": self.mask, "checks": self.checks}
        )

    def run(self, **options: Any) -> TableResult:
        """Check; the results and the failing rows are those of a run that reads everything."""
        ours, whole = f"run {uuid.uuid4()}", f"whole {uuid.uuid4()}"
        found = check_table(self.target, self.ledger, "shop", ours, self.policy, **options)
        every = TablePolicy(table="t", checks=self.checks)
        expected = check_table(self.target, self.ledger, "whole", whole, every)
        assert found.row_count == expected.row_count
        for mine, theirs in zip(found.checks, expected.checks, strict=True):
            assert essence(mine) == essence(theirs)
            assert self.rows(ours, mine.name) == self.rows(whole, mine.name)
        assert record.load_run(self.ledger, ours).tables[0].partitions == found.partitions
        return found

    def read(self, **options: Any) -> int:
        """How many partitions a run reads."""
        found = self.run(**options)
        assert found.partitions is not None
        return found.partitions.read

    def rows(self, run_id: str, check: str) -> list[str]:
        return sorted(map(str, record.failed_row_samples(self.ledger, run_id, "public.t", check, limit=10_000)))

    def ways(self) -> PartitionWays:
        """What ``check --explain`` says of the partitions."""
        with connect(self.target, work="test") as connection:
            memory = partitions_of(self.ledger, "shop", self.policy)
            ways = explained(connection, self.policy, by_partition=memory).partitions
        assert ways is not None
        return ways

    def why(self) -> dict[str, str]:
        """Of each partition, why it would be read or not."""
        ways = self.ways()
        assert ways.refused is None
        return {way.partition.removeprefix("public."): way.why for way in ways.partitions}

    def do(self, *statements: str) -> None:
        with psycopg.connect(self.target.url, autocommit=True) as session:
            for statement in statements:
                session.execute(statement.encode())


def essence(check: Any) -> tuple[Any, ...]:
    """All that was found, but an age, which grows, and the word about what was taken over."""
    aging = check.type == "freshness"
    message = re.sub(r" Of the failing rows .*", "", check.message)
    found = (check.name, check.status, check.failed_rows, check.considered_rows, check.kept_rows)
    return found if aging else (*found, repr(check.value), message)


@pytest.fixture
def checked(emptied: Target, ledger: Ledger) -> Checked:
    found = Checked(emptied, ledger)
    found.do(*filter(str.strip, TABLE.split(";")))
    return found


def test_only_the_partition_that_changed_is_read_and_the_results_are_those_of_reading_all(checked: Checked) -> None:
    checked.checks = list(CHECKS)
    assert checked.read() == ALL_READ
    assert checked.read() == NONE_READ
    checked.do("update t set n = null where id = 401")
    found = checked.run()
    assert found.partitions is not None
    assert found.partitions.as_json() == {"all": 4, "read": 1, "unchanged": 3}
    not_null = found.checks[0]
    assert not_null.kept_rows == not_null.failed_rows == 27
    assert "Of the failing rows 19 were found before, in 3 partitions that are unchanged since " in not_null.message
    assert checked.read() == NONE_READ
    assert checked.read(full=True) == ALL_READ


CHANGES = {
    "a row that is new": ["insert into t values (-1, '2024-02-02', null, 0, 'x', 1)"],
    "a row that is gone": ["delete from t_2 where id = 400"],
    "a row in place of another": [
        "delete from t_2 where id = 400",
        "insert into t values (400, '2024-02-02', null, 0, 'x', 1)",
    ],
    "a change that no counter has seen": ["set track_counts = off; update t_2 set n = null where id = 401"],
    "counters that were reset": ["update t_2 set n = null where id = 401", "select pg_stat_reset()"],
    "counters of the table that were reset": [
        "update t_2 set n = null where id = 401",
        "select pg_stat_reset_single_table_counters('t_2'::regclass)",
    ],
    "rows that vacuum has frozen since": ["update t_2 set n = null where id = 401", "vacuum (freeze) t_2"],
    "rows that were truncated and filled in again": [
        "create table copy as select * from t_2",
        "truncate t_2",
        "insert into t_2 select id, at, null, price, kind, score from copy",
    ],
    "a partition exchanged for another": [
        "create table other (like t_2 including all)",
        "insert into other select id, at, null, price, kind, score from t_2",
        "begin",
        "alter table t detach partition t_2",
        "alter table t_2 rename to was",
        "alter table other rename to t_2",
        "alter table t attach partition t_2 for values from ('2024-02-01') to ('2024-03-01')",
        "commit",
    ],
    "a partition detached, changed and attached again": [
        "alter table t detach partition t_2",
        "update t_2 set n = null where id = 401",
        "alter table t attach partition t_2 for values from ('2024-02-01') to ('2024-03-01')",
    ],
    "rows copied in, frozen at once": [
        "create table copy as select * from t_2",
        "begin; truncate t_2; copy t_2 from program 'echo 9,2024-02-02,,1,x,1' (freeze, format csv); commit",
    ],
}


@pytest.mark.parametrize(
    ("change", "unchanged"),
    cases(
        *((change, "proven") for change in CHANGES),
        *((change, "immutable after 1 month") for change in CHANGES if "counter" not in change),
        sample={
            ("a row in place of another", "proven"),
            ("a change that no counter has seen", "proven"),
            ("rows that were truncated and filled in again", "proven"),
            ("a partition exchanged for another", "immutable after 1 month"),
        },
    ),
)
def test_no_change_of_a_partition_is_missed(checked: Checked, change: str, unchanged: str) -> None:
    checked.unchanged = unchanged
    assert checked.read() == ALL_READ
    checked.do("select pg_stat_force_next_flush()", *CHANGES[change], "select pg_stat_force_next_flush()")
    assert checked.read() == ONE_READ


@pytest.mark.parametrize(
    "statement",
    cases(
        *("alter table t alter n type bigint", "alter table t add extra int default 7", "vacuum full t"),
        sample={"alter table t alter n type bigint"},
    ),
)
def test_a_table_that_was_altered_or_rewritten_is_read(checked: Checked, statement: str) -> None:
    assert checked.read() == ALL_READ
    checked.do(statement)
    assert checked.read() == ALL_READ


@pytest.mark.parametrize(
    "work",
    cases(
        "insert into t values (-1, '2024-02-02', null, 0, 'x', 1)",
        "update t set n = null where id = 401",
        "delete from t where id = 401",
        sample={"delete from t where id = 401"},
    ),
)
def test_what_was_open_in_the_first_run_and_committed_behind_it_is_seen_by_the_second(
    checked: Checked, work: str
) -> None:
    """Its transaction is older than the first snapshot, and older than others that this one has seen."""
    with psycopg.connect(checked.target.url) as writer:
        writer.execute(work.encode())
        checked.do("update t set price = 1 where id = 1")
        assert checked.read() == ALL_READ
        writer.commit()
    read = checked.read()
    assert 1 <= read <= 2  # the other partition was written while this transaction ran: in doubt it is read
    assert checked.read() == NONE_READ


def test_what_was_rolled_back_has_not_changed_anything(checked: Checked) -> None:
    assert checked.read() == ALL_READ
    with psycopg.connect(checked.target.url) as writer:
        writer.execute("update t set n = null")
        writer.rollback()
    assert checked.read() == NONE_READ


def test_what_is_promised_is_believed_unless_a_counter_contradicts_it(checked: Checked) -> None:
    checked.unchanged = "immutable after 1 month"
    assert checked.read() == ALL_READ
    why = checked.why()
    assert why["t_1"].endswith("as promised")
    assert why["t_rest"].endswith("by its row versions")
    checked.do("update t set price = price where id = 401; select pg_stat_force_next_flush()")
    assert checked.why()["t_2"] == "1 of its rows are new"
    assert checked.read() == ONE_READ
    checked.do("select pg_stat_reset()")
    assert checked.why()["t_1"].endswith("by its row versions")
    assert checked.read() == NONE_READ
    assert checked.why()["t_1"].endswith("as promised")


def test_a_promise_holds_only_where_it_held_already_when_the_rows_were_read(checked: Checked) -> None:
    """What was read while it could still change is proven once, when it has come of age."""
    checked.unchanged = "immutable after 100 years"
    assert checked.read() == ALL_READ
    assert all(why.endswith("by its row versions") for why in checked.why().values())


def test_a_check_that_is_new_or_changed_reads_by_itself(checked: Checked) -> None:
    checked.checks.insert(2, {"range": {"column": "n", "min": 1, "max": 28}})
    assert checked.read() == ALL_READ
    checked.checks[2] = {"range": {"column": "n", "min": 5, "max": 28}}
    checked.checks.append({"not_null": "price"})
    assert checked.why()["t_1"] == "unchanged, but new or changed is range_n, not_null_price"
    assert checked.read() == ALL_READ
    assert checked.read() == NONE_READ


def test_a_reference_holds_only_while_the_other_table_is_the_same(checked: Checked) -> None:
    checked.checks.append({"relationship": {"column": "kind", "to": "kinds.kind"}})
    assert checked.read() == ALL_READ
    checked.do("update kinds set kind = 'z' where kind = 'b'")
    assert "relationship_kind" in checked.why()["t_1"]
    assert checked.read() == ALL_READ
    assert checked.read() == NONE_READ


def test_kept_rows_that_are_gone_from_the_ledger_are_read_again(checked: Checked) -> None:
    assert checked.read() == ALL_READ
    with psycopg.connect(checked.ledger.target.url) as session:
        session.execute("delete from ledger.quality_run")
    assert checked.read() == NONE_READ


def test_what_might_be_answered_otherwise_over_the_same_rows_is_read_as_a_whole(checked: Checked) -> None:
    checked.do(
        "create type mood as enum ('good', 'bad'); alter table t add mood mood",
        "create function mine(int) returns boolean immutable language sql return $1 > 3",
        'create function "My %s"(int) returns boolean immutable language sql return $1 > 3',
    )
    reasons: list[tuple[Any, str]] = [
        ({"range": {"column": "at", "max": "now"}}, "the moment"),
        ({"range": {"column": "at", "max": "tomorrow"}}, "the moment"),
        ({"not_null": "n", "where": "at < now()"}, "the moment"),
        ({"not_null": "n", "where": "mine(n)"}, "redefined"),
        ({"not_null": "n", "where": '"My %s"(n)'}, "redefined"),
        ({"not_null": "n", "where": "n in (select 1)"}, "other rows"),
        ({"not_null": "mood"}, "redefined"),
        ({"not_null": "n", "where": "t.n > 3"}, "names the table"),
        ({"not_null": "n", "where": "t::text like '(1%'"}, "names the table"),
        ({"not_null": "n", "where": "mood = 'good'"}, "redefined"),
        ({"range": {"column": "kind", "max": "b"}}, "library"),
        ({"mean": {"column": "score", "min": 0}}, "exactly"),
        ({"unique": "id"}, "share a key"),
        ({"relationship": {"column": "id", "to": "t.id"}}, "the table itself"),
        ({"sql": {"rows": "select 1"}}, "cannot be put together"),
        ({"schema": {"columns": {"n": "int"}}}, "cannot be put together"),
    ]
    checked.checks = [{**check, "name": f"c{place}"} for place, (check, _) in enumerate(reasons)]
    checked.checks.append({"not_null": "id"})
    whole = checked.ways().whole
    for place, (check, why) in enumerate(reasons):
        assert why in whole[f"c{place}"], check
    assert "not_null_id" not in whole


def without_partitions(checked: Checked) -> str:
    checked.do("create table plain as select * from t; drop table t; alter table plain rename to t")
    return "not partitioned"


def with_an_unlogged_partition(checked: Checked) -> str:
    checked.do("alter table t_1 set unlogged")
    return "unlogged"


@pytest.mark.parametrize("make", [without_partitions, with_an_unlogged_partition])
def test_a_table_that_cannot_be_compared_is_read_as_a_whole(checked: Checked, make: Callable[[Checked], str]) -> None:
    why = make(checked)
    assert checked.run().partitions is None
    assert why in str(checked.ways().refused)


def test_row_level_security_makes_it_read_the_table_as_a_whole(checked: Checked, server_url: str) -> None:
    role = f"reader_{checked.target.name}"
    checked.do(
        "alter table t enable row level security; create policy few on t using (id % 10 = 0)",
        f"create role {role} login password 'x'; grant usage on schema public to {role}",
        f"grant select on t, t_1, t_2, t_3, t_rest, kinds to {role}",
    )
    whole = checked.target
    checked.target = Target(whole.name, psycopg.conninfo.make_conninfo(whole.url, user=role, password="x"))
    try:
        found = checked.run()
        assert found.partitions is None
        assert found.row_count == 130
    finally:
        checked.target = whole
        checked.do(f"drop owned by {role}; drop role {role}")


def test_partitions_below_partitions_are_compared_one_by_one(checked: Checked) -> None:
    checked.checks = list(CHECKS)
    checked.do(
        "create table t_4 partition of t for values from ('2025-01-01') to ('2025-02-01') partition by list (kind)",
        "create table t_4_a partition of t_4 for values in ('a')",
        "create table t_4_x partition of t_4 default",
        "insert into t select id, '2025-01-05', n, price, kind, score from t where id < 50",
    )
    assert checked.read() == 6
    checked.do("update t set n = null where kind = 'b' and at > '2025-01-01' and id = 4")
    assert checked.why()["t_4_x"] == "1 of its rows are new"
    assert checked.read() == ONE_READ
    assert "unique_id_at" in checked.ways().whole  # kind decides, too


def test_a_streamed_partition_is_answered_as_a_read_one(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    checked.checks = list(CHECKS)
    monkeypatch.setattr("dbplatform.quality.streaming.cost.Table.may_pay", lambda *_: True)
    monkeypatch.setattr("dbplatform.quality.streaming.plan._pays", lambda *_: True)
    assert checked.read() == ALL_READ
    checked.do("update t set n = null, price = 'NaN' where id = 401")
    assert checked.read() == ONE_READ


def test_partitions_are_streamed_on_one_pair_of_sessions(checked: Checked, monkeypatch: pytest.MonkeyPatch) -> None:
    checked.checks = list(CHECKS)
    monkeypatch.setattr("dbplatform.quality.streaming.cost.Table.may_pay", lambda *_: True)
    monkeypatch.setattr("dbplatform.quality.streaming.plan._pays", lambda *_: True)
    read: list[list[str]] = []

    def counted(connection: Any, plan: Any, places: Any, *, tell: Any) -> Any:
        read.append([place.relation.name for place in places])
        return streamed_each(connection, plan, places, tell=tell)

    monkeypatch.setattr("dbplatform.quality.streaming.reading.streamed_each", counted)
    checked.run()
    partitions = ["t_1", "t_2", "t_3", "t_rest"]
    assert read == [partitions, ["t"], ["t"]], "at once; what must be read as a whole; the run that it is compared with"
    checked.do("update t set n = null where id in (1, 401)")
    checked.run()
    assert read[3] == ["t_1", "t_2"]


def test_a_stream_of_partitions_that_fails_is_answered_by_scans(
    checked: Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked.checks = list(CHECKS)
    monkeypatch.setattr("dbplatform.quality.streaming.cost.Table.may_pay", lambda *_: True)
    monkeypatch.setattr("dbplatform.quality.streaming.plan._pays", lambda *_: True)
    monkeypatch.setattr("dbplatform.quality.streaming.sessions.make_conninfo", lambda *_, **__: "host=127.0.0.1 port=1")
    assert checked.read() == ALL_READ
    assert checked.read() == NONE_READ


def test_the_bound_of_kept_rows_holds_over_all_partitions(checked: Checked) -> None:
    checked.checks = [{"not_null": "n"}, {"range": {"column": "n", "max": 2, "keep_rows": 10}}]
    for expected in (ALL_READ, NONE_READ):
        run_id = f"run {uuid.uuid4()}"
        found = check_table(checked.target, checked.ledger, "shop", run_id, checked.policy, bound=25)
        assert [check.kept_rows for check in found.checks] == [25, 10]
        assert len(checked.rows(run_id, "range_n")) == 10
        assert found.partitions is not None
        assert found.partitions.read == expected


def test_failing_rows_with_a_masked_column_are_read_again_and_masked_as_declared_now(checked: Checked) -> None:
    checked.mask = {"n": "redact", "id": "hash"}
    checked.checks = [{"range": {"column": "n", "max": 2}}]
    for expected in (ALL_READ, NONE_READ):
        run_id = f"run {uuid.uuid4()}"
        found = check_table(checked.target, checked.ledger, "shop", run_id, checked.policy)
        assert found.partitions is not None
        assert found.partitions.read == expected
        assert found.checks[0].kept_rows == found.checks[0].failed_rows
        assert all("'n': '***'" in row for row in checked.rows(run_id, "range_n"))


def test_equal_values_of_two_partitions_have_one_hash_in_a_run(checked: Checked) -> None:
    checked.mask = {"kind": "hash"}
    checked.checks = [{"accepted_values": {"column": "kind", "values": ["a"]}}]
    check_table(checked.target, checked.ledger, "shop", "hashed", checked.policy)
    rows = record.failed_row_samples(checked.ledger, "hashed", "public.t", "accepted_values_kind", limit=10_000)
    assert len({row["kind"] for row in rows}) == 3, "of b, c and x"


def test_no_answer_of_a_partition_tells_a_masked_value_and_those_that_were_kept_go(checked: Checked) -> None:
    checked.checks = [
        {"not_null": "n"},
        {"mean": {"column": "price", "min": 0}},
        {"sum": {"column": "price", "min": 0}},
        {"freshness": {"column": "at", "max_age": "50 years"}},
    ]
    checked.run()
    assert kept_answers(checked) == {"not_null_n", "mean_price", "sum_price", "freshness_at"}
    checked.mask = {"price": "redact", "at": "redact"}
    found = check_table(checked.target, checked.ledger, "shop", "masked", checked.policy)
    assert [check.status for check in found.checks][1:] == ["passed"] * 3
    assert kept_answers(checked) == {"not_null_n"}
    assert checked.ways().whole["mean_price"] == "its column is masked: no value of it is kept"
    checked.checks = checked.checks[1:]
    check_table(checked.target, checked.ledger, "shop", "masked", checked.policy)
    assert kept_answers(checked) == set(), "also where nothing is left that can be answered by partition"


def test_a_table_whose_partitions_are_not_compared_any_more_is_forgotten(checked: Checked) -> None:
    checked.run()
    assert kept_answers(checked)
    check_table(checked.target, checked.ledger, "shop", "plain", TablePolicy(table="t", checks=checked.checks))
    assert not kept_answers(checked)


def kept_answers(checked: Checked) -> set[str]:
    """The checks of which the ledger keeps answers by partition."""
    with psycopg.connect(checked.ledger.target.url) as session:
        rows = session.execute(
            "select distinct jsonb_object_keys(answers) from ledger.quality_partition where database = 'shop'"
        )
        return {name for (name,) in rows}


@pytest.mark.drill
def test_a_crash_of_the_server_loses_the_counters_and_no_change(tmp_path: Path, ledger: Ledger) -> None:
    """The last change was committed, and the server killed at once: its counters were never written."""
    server = EmbeddedServer(Home(root=tmp_path / "home"), settings={"max_prepared_transactions": "5"})
    server.start()
    try:
        with psycopg.connect(server.url("postgres"), autocommit=True) as session:
            session.execute("create database crashing")
        checked = Checked(Target("crashing", server.url("crashing")), ledger, unchanged="immutable after 1 month")
        checked.do(*filter(str.strip, TABLE.split(";")))
        checked.do("begin; update t set n = null where id = 401; prepare transaction 'open'")
        assert checked.read() == ALL_READ
        with psycopg.connect(checked.target.url, autocommit=True) as session:
            session.execute("commit prepared 'open'")
            session.execute("delete from t where id = 1")
            pid = server.status().pid
            assert pid is not None
            os.kill(pid, signal.SIGKILL)
        server.start()
        assert checked.read() == 2
        assert checked.read() == NONE_READ
    finally:
        server.remove()
