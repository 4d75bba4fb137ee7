"""Benchmarks on a real server: what runs where, what is refused, what is kept. No test looks at how long it took."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.benchmarking import record
from dbplatform.benchmarking.errors import BenchmarkFailed, NoValues, WritesUndeclared
from dbplatform.benchmarking.pgbench import SliceTimer, script
from dbplatform.benchmarking.pooled import _call, _Seen, measure_pools, sizes
from dbplatform.benchmarking.surroundings import Surroundings, changes, obstacles, read_surroundings
from dbplatform.benchmarking.timing import QueryTimer
from dbplatform.benchmarking.values import Bound, bind
from dbplatform.benchmarking.yielding import Courtesy
from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.benchmark_sides import before_and_after, create_index, migrate
from dbplatform.operations.platform import Platform
from dbplatform.postgres.client_programs import login
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.locks import advisory_lock
from dbplatform.postgres.pools import PoolSettings
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.typed import Type, typist

HEAD = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
"""
BENCHMARKS = """\
  benchmarks:
    seconds: 100 ms
    queries:
      - name: orders_of_a_customer
        sql: "select * from orders where customer = :customer::text order by id"
        params: {customer: "select customer from orders order by customer"}
        target: 1 hour
      - {name: how_many, sql: select count(*) from orders}
    scripts:
      - {name: look_up, file: look_up.sql, clients: 2, params: {most: select max(id) from orders}}
"""
CONNECTION = "  connection: {url_env: SHOP_URL, environment: test, pool: {size: 2, max_overflow: 2}}\n"
SCHEMA = """
    create table orders (id int primary key, customer text not null, note text);
    insert into orders select g, 'customer number ' || g % 50, repeat('x', 40) from generate_series(1, 2000) g;
    analyze orders
"""
_WAITING = """
    select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()
"""
LOOK_UP = "\\set id random(1, :most)\nselect note from orders where id = :id;\n"


class Shop:
    """A declared shop with orders, and somebody who types."""

    def __init__(self, folder: Path, database: Target, type_: Type) -> None:
        self.folder, self.database, self.type = folder, database, type_

    def declare(self, benchmarks: str = BENCHMARKS, *, connection: str = CONNECTION, more: str = "") -> None:
        self.home = self.folder / "defs" / "shop"
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "defs.yaml").write_text(HEAD + connection + more + benchmarks)
        (self.home / "look_up.sql").write_text(LOOK_UP)

    def sql(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.database.url, autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    @property
    def platform(self) -> Platform:
        return Platform(Project.at(self.folder))


@pytest.fixture
def shop(
    tmp_path: Path,
    database: Target,
    ledger: Ledger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Shop:
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    made = Shop(tmp_path, database, typist(tmp_path, capsys))
    made.declare()
    made.sql(SCHEMA)
    return made


@contextmanager
def held(database: Target, statement: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """A transaction of somebody else."""
    with psycopg.connect(database.url) as other:
        other.execute(statement.encode())
        yield other


def test_a_run_is_kept_with_its_rounds_and_without_a_value_of_the_data(shop: Shop, ledger: Ledger) -> None:
    found = shop.type("bench", "run", "shop", "--baseline", "--json")
    assert found.code == 0
    document = found.json
    assert [(one["name"], one["kind"], one["status"]) for one in document["benchmarks"]] == [
        ("orders_of_a_customer", "query", "measured"),
        ("how_many", "query", "measured"),
        ("look_up", "script", "measured"),
    ]
    for one in document["benchmarks"]:
        assert one["rounds"] == len(one["a_ms"]) == len(one["b_ms"]) > 0
        assert one["median_ms"] > 0
    assert document["benchmarks"][0]["target"] in ("met", "not sure")
    assert [one["target"] for one in document["benchmarks"][1:]] == [None, None]
    assert document["benchmarks"][2]["clients"] == 2
    assert document["benchmarks"][2]["tps"] > 0
    assert document["surroundings"]["rows"] == {"public.orders": 2000}
    assert document["baseline"] == "baseline"
    page = Path(document["page"]).read_text()
    assert "orders_of_a_customer" in page.replace("<wbr>", "")
    with ledger.session() as session:
        kept = session.connection().exec_driver_sql("select t::text from ledger.benchmark_run t").scalars().all()
    assert len(kept) == 1
    assert "customer number" not in kept[0] + page + found.out


def test_of_two_runs_at_once_the_second_waits_and_names_the_first(
    shop: Shop, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dbplatform.operations.benchmarks.advisory_lock", partial(advisory_lock, wait_ms=0))
    with connect(ledger.target, work="bench") as another, advisory_lock(another, "bench shop"):
        told = shop.type("bench", "run", "shop")
    assert told.code == 3
    assert "holds the bench shop lock" in told.err
    assert "(dbplatform bench, connected for" in told.err
    assert shop.type("bench", "run", "shop").code == 0


def test_a_later_run_is_compared_with_the_baseline_and_told_what_changed(shop: Shop) -> None:
    assert shop.type("bench", "compare", "shop").code == 2
    assert shop.type("bench", "run", "shop", "--baseline", "monday", "--name", "how_many").code == 0
    shop.sql("insert into orders select g, 'new', '' from generate_series(2001, 4000) g; analyze orders")
    shop.sql("create index orders_note on orders (note)")
    found = shop.type("bench", "compare", "shop", "--to", "monday", "--json")
    assert found.code in (0, 1)
    document = found.json
    assert document["against"].startswith("monday, of ")
    assert document["notes"][:2] == ["the schema is another one", "public.orders had about 2,000 rows, and has 4,000"]
    verdicts = {one["name"]: one["comparison"] for one in document["benchmarks"]}
    assert verdicts["how_many"]["verdict"] != "not comparable"
    assert verdicts["look_up"]["reason"] == (
        "it was not measured then; keep a new baseline: dbplatform bench run shop --baseline"
    )


def test_a_baseline_of_another_statement_is_not_comparable(shop: Shop) -> None:
    assert shop.type("bench", "run", "shop", "--baseline", "--name", "how_many").code == 0
    shop.declare(BENCHMARKS.replace("count(*) from orders}", "count(*) from orders where id > 0}"))
    (found,) = shop.type("bench", "compare", "shop", "--name", "how_many", "--json").json["benchmarks"]
    assert found["comparison"]["verdict"] == "not comparable"
    assert found["comparison"]["reason"] == "its statement, its parameters or its clients are other ones"


def test_a_name_of_a_baseline_passes_on_to_the_newest_run(shop: Shop, ledger: Ledger) -> None:
    ids = [shop.type("bench", "run", "shop", "--baseline", "--name", "how_many", "--json").json["id"] for _ in range(2)]
    assert record.find(ledger, "shop", "baseline").id == ids[1]
    assert record.find(ledger, "shop", ids[0][:8]).baseline is None


def test_what_writes_undeclared_has_errored_and_changed_nothing(shop: Shop) -> None:
    shop.declare(
        "  benchmarks:\n    seconds: 100 ms\n    queries:\n"
        "      - {name: forget, sql: delete from orders}\n"
        "      - {name: sneak, sql: with gone as (delete from orders returning 1) select count(*) from gone}\n"
        "      - {name: two, sql: select 1; delete from orders}\n"
        "      - {name: how_many, sql: select count(*) from orders}\n"
        "    scripts: [{name: look_up, file: look_up.sql}]\n"
    )
    (shop.home / "look_up.sql").write_text("begin read write; delete from orders; end;")
    found = shop.type("bench", "run", "shop", "--json")
    assert found.code == 3
    errors = {one["name"]: one["error"] for one in found.json["benchmarks"]}
    assert "it writes, and is not declared as writing" in errors["forget"]
    assert "it writes, and is not declared as writing" in errors["sneak"]
    assert "cannot insert multiple commands" in errors["two"]
    assert "leaves the read-only mode" in errors["look_up"]
    assert errors["how_many"] is None
    assert shop.sql("select count(*) from orders") == [(2000,)]


def test_a_script_that_writes_is_refused_by_the_server_where_it_is_not_declared(shop: Shop) -> None:
    (shop.home / "look_up.sql").write_text("delete from orders where id <= :most;")
    found = shop.type("bench", "run", "shop", "--name", "look_up", "--json")
    assert found.code == 3
    assert "cannot execute DELETE in a read-only transaction" in found.json["benchmarks"][0]["error"]
    assert shop.sql("select count(*) from orders") == [(2000,)]


def test_a_script_does_not_run_where_the_read_only_mode_does_not_reach_the_server(shop: Shop, tmp_path: Path) -> None:
    program = tmp_path / "pgbench"
    # As through PgBouncer with ignore_startup_parameters = options.
    program.write_text(f'#!/bin/sh\nunset PGOPTIONS\nexec {find_programs().path("pgbench")} "$@"\n')
    program.chmod(0o755)
    deletes = script("sweep", "delete from orders;", clients=2, writes=False, variables={})
    timer = SliceTimer(
        program, login(shop.database, work="test"), deletes, tmp_path, settings={}, statement_timeout_ms=10_000
    )
    with pytest.raises(BenchmarkFailed, match="not kept to reading: PGOPTIONS does not reach the server"):
        timer.warm()
    assert shop.sql("select count(*) from orders") == [(2000,)]


def test_what_writes_runs_on_a_copy_and_leaves_nothing(shop: Shop, server_url: str) -> None:
    shop.declare(
        "  benchmarks:\n    seconds: 100 ms\n"
        "    queries: [{name: forget, sql: delete from orders, writes: true}]\n"
        "    scripts: [{name: look_up, file: look_up.sql, writes: true, clients: 3}]\n",
        more="  backups: {}\n",
    )
    (shop.home / "look_up.sql").write_text("delete from orders where id = (select min(id) from orders);")
    without = shop.type("bench", "run", "shop", "--json")
    assert without.code == 3
    assert "there is no backup" in without.json["benchmarks"][0]["error"]
    assert shop.type("backup", "create", "shop").code == 0
    found = shop.type("bench", "run", "shop", "--json")
    assert [(one["status"], one["place"]) for one in found.json["benchmarks"]] == [("measured", "copy")] * 2
    assert shop.sql("select count(*) from orders") == [(2000,)]
    with psycopg.connect(server_url) as connection:
        left = connection.execute("select datname from pg_database where datname ~ '^dbplatform_(trial|changed)'")
        assert left.fetchall() == []


@pytest.mark.parametrize("what", cases("index", "migration", sample=("index",)))
def test_a_change_is_tried_on_two_copies_one_of_which_has_it(shop: Shop, what: str) -> None:
    shop.declare(more="  backups: {}\n  migrations: {directory: migrations}\n")
    folder = shop.home / "migrations"
    folder.mkdir()
    (folder / "V1__note.sql").write_text("alter table orders alter column note set default '';")
    assert shop.type("migrate", "apply", "shop").code == 0
    assert shop.type("backup", "create", "shop").code == 0
    (folder / "V2__paid.sql").write_text("alter table orders add column paid boolean;")
    declared = shop.platform.declarations.get("shop")
    if what == "index":
        change = create_index("create index orders_by_customer on orders (customer);")
        asked = "select count(*) from pg_indexes where indexname = 'orders_by_customer'"
    else:
        change = migrate(declared, "2")
        asked = "select count(*) from pg_attribute where attrelid = 'orders'::regclass and attname = 'paid'"
    with before_and_after(shop.platform, declared, change, words="it") as (before, after):
        counts = []
        for side in (before, after):
            with connect(side.target, work="test") as connection:
                counts.append(connection.execute(asked.encode()).fetchall())
    assert counts == [[(0,)], [(1,)]]
    assert shop.sql(asked) == [(0,)]
    if what == "migration":
        tried = (("--index", "create index on orders (customer)", "the index"), ("--migration", "2", "version 2"))
        for option, value, words in tried:
            found = shop.type("bench", "compare", "shop", option, value, "--name", "orders_of_a_customer", "--json")
            assert found.code in (0, 1)
            assert found.json["sides"]["b"] == f"with {words}"
            assert found.json["benchmarks"][0]["comparison"]["rounds"] > 0
        refused = shop.type("bench", "compare", "shop", "--migration", "1")
        assert (refused.code, "has it already" in refused.err) == (2, True)


def test_a_setting_is_set_on_one_side_alone(shop: Shop) -> None:
    shop.declare(
        "  benchmarks:\n    seconds: 100 ms\n    queries:\n"
        "      - {name: seen, sql: select 1 / (current_setting('work_mem') <> '77MB')::int}\n"
        "    scripts: [{name: look_up, file: look_up.sql, params: {most: select 7}}]\n"
    )
    assert shop.type("bench", "run", "shop", "--name", "seen").code == 0
    found = shop.type("bench", "compare", "shop", "--setting", "work_mem=77MB", "--name", "seen", "--json")
    assert "division by zero" in found.json["benchmarks"][0]["error"]
    (shop.home / "look_up.sql").write_text("select 1 / (current_setting('work_mem') <> '77MB')::int where :most = 7;")
    found = shop.type("bench", "compare", "shop", "--setting", "work_mem=77MB", "--name", "look_up", "--json")
    assert "division by zero" in found.json["benchmarks"][0]["error"]
    found = shop.type("bench", "compare", "shop", "--setting", "work_mem=78MB", "--json")
    assert found.json["sides"] == {"a": "as it is", "b": "work_mem = 78MB"}
    assert all(one["comparison"]["rounds"] > 0 for one in found.json["benchmarks"])


def test_what_cannot_be_compared_in_one_run_is_refused(shop: Shop) -> None:
    for options, reason in (
        (("--setting", "shared_buffers=1GB"), "it needs a restart of the server"),
        (("--setting", "autovacuum=off"), "it is one of the whole server"),
        (("--setting", "work_memory=1GB"), "there is no such setting"),
        (("--setting", "work_mem=much"), "invalid value for parameter"),
        (("--setting", "transaction_read_only=off"), "the comparison itself relies on it"),
        (("--setting", "work_mem"), "is no setting"),
        (("--index", "drop table orders"), "it is no CREATE INDEX"),
        (("--index", "create index on orders (id)"), "there is no backup"),
        (("--to", "friday"), "There is no run of benchmarks 'friday'"),
        (("--to", "friday", "--migration", "2"), "exclude each other"),
    ):
        found = shop.type("bench", "compare", "shop", *options)
        assert found.code == 2
        assert reason in found.err


def test_a_production_server_is_measured_when_somebody_asked_or_its_window_is_open(shop: Shop) -> None:
    production = CONNECTION.replace("test", "production")
    shop.declare(connection=production)
    found = shop.type("bench", "run", "shop")
    assert (found.code, "it is not measured unasked" in found.err) == (2, True)
    assert shop.type("bench", "run", "shop", "--pool").code == 2
    assert shop.type("bench", "run", "shop", "--yes", "--name", "how_many").code == 0
    shop.declare(
        BENCHMARKS.replace("seconds: 100 ms", "seconds: 100 ms\n    window: 00:00-23:59"), connection=production
    )
    assert shop.type("bench", "run", "shop", "--dry-run").code == 0


def test_never_more_connections_than_the_pool_may_open(shop: Shop) -> None:
    found = shop.type("bench", "run", "shop", "--clients", "4")
    assert found.code == 2
    assert "5 clients are more than the 4 connections" in found.err
    plan = shop.type("bench", "run", "shop", "--clients", "3", "--dry-run", "--json").json
    assert plan["connections"] == 4
    assert shop.type("bench", "run", "shop", "--pool", "--clients", "5", "--dry-run").code == 2


def test_where_pgbench_is_missing_the_script_says_so_and_the_rest_goes_on(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("initdb", "postgres", "pg_ctl"):
        program = folder / name
        program.write_text("#!/bin/sh\necho 'postgres (PostgreSQL) 17.1'\n")
        program.chmod(0o755)
    monkeypatch.setenv("DBPLATFORM_PG_BIN", str(folder))
    found = shop.type("bench", "run", "shop", "--json")
    assert found.code == 3
    by_name = {one["name"]: one for one in found.json["benchmarks"]}
    assert by_name["how_many"]["status"] == "measured"
    assert "has no program pgbench" in by_name["look_up"]["error"]


def test_parameters_are_numbered_and_casts_left_alone(database: Target) -> None:
    with connect(database, work="test") as connection:
        params = {"id": "values (3), (1), (null), (2)", "name": "select 'it''s 100%'"}
        bound = bind(connection, "x", "select :id::int, :name || ':idle', :id + 1;", params)
        assert bound.query == "select $1::int, $2 || ':idle', $1 + 1"
        assert bound.values == (("1", "2", "3"), ("it's 100%",))
        assert "100%" not in repr(bound)
        assert bound.of_turn(7, 20) == bound.of_turn(7, 20) != bound.of_turn(8, 20)
        timer = QueryTimer(connection, bound)
        timer.warm()
        assert min(timer.block(1)) > 0
        for query, params in (("select :id", {"id": "select 1 where false"}), ("select 1", {"id": "select 1"})):
            with pytest.raises(NoValues):
                bind(connection, "x", query, params)
        connection.execute("create sequence a")
        with pytest.raises(NoValues, match="read-only"):
            bind(connection, "x", "select :id", {"id": "select nextval('a')"})


def test_a_statement_that_takes_too_long_has_errored(database: Target) -> None:
    with connect(database, work="test", statement_timeout_ms=50) as connection:
        timer = QueryTimer(connection, Bound(name="sleepy", query="select pg_sleep(60)"))
        with pytest.raises(BenchmarkFailed, match="longer than statement_timeout"):
            timer.warm()


def test_a_script_takes_numbers_alone_and_keeps_to_reading() -> None:
    with pytest.raises(NoValues):
        script("x", "select :a;", clients=1, writes=False, variables={"a": ["1; drop table x"]})
    for text in ("BEGIN READ  WRITE;", "set default_transaction_read_only = off;", "reset all;", "discard all;"):
        with pytest.raises(WritesUndeclared):
            script("x", text, clients=1, writes=False, variables={})
    assert script("x", "begin read write;", clients=1, writes=True, variables={}).writes


def test_it_waits_while_somebody_waits_for_a_lock(database: Target) -> None:
    with connect(database, work="test") as connection:
        connection.execute("create table t ()")
        with held(database, "lock table t") as holder, psycopg.connect(database.url, autocommit=True) as waiter:
            waiter.pgconn.send_query(b"select from t")
            while connection.execute(_WAITING.encode()).fetchone() == (0,):
                connection.execute("select pg_sleep(0.01)")
            paused: list[float] = []

            def sleep(seconds: float) -> None:
                paused.append(seconds)
                if len(paused) == 2:
                    holder.rollback()
                    while waiter.pgconn.get_result() is not None:
                        pass

            courtesy = Courtesy(1000, sleep=sleep)
            courtesy.wait(connection, float("inf"))
            assert len(paused) >= 2
            assert courtesy.notes[0].startswith("waited ")
            Courtesy(-1, sleep=sleep, clock=lambda: 5.0).wait(connection, 5.0)


def test_a_pool_is_measured_by_its_size_within_its_connections(database: Target) -> None:
    settings = PoolSettings(size=2, max_overflow=2, timeout_s=5, idle_s=60)
    assert sizes(settings, 4) == (1, 2, 4)
    loads = measure_pools(
        database, settings, Bound(name="one", query="select 1"), callers=4, seconds=1, notable=0.05
    )  # fmt: skip
    assert [one.size for one in loads] == [0, 1, 2, 4]
    for one in loads:
        assert one.per_second > 0
        assert one.callers == 4
        assert one.refused == 0
    assert loads[0].comparison is None
    assert loads[1].comparison is not None
    with psycopg.connect(database.url) as connection:
        opened = connection.execute(
            "select count(*) from pg_stat_activity where application_name = 'dbplatform bench pool'"
        ).fetchone()
    assert opened == (0,)


def test_a_pool_is_measured_no_longer_than_asked_for(database: Target) -> None:
    settings = PoolSettings(size=1, max_overflow=0, timeout_s=5, idle_s=60)
    slow = Bound(name="slow", query="select pg_sleep(0.25)")
    _, pool = measure_pools(database, settings, slow, callers=1, seconds=1, notable=0.05)
    assert pool.comparison is not None
    assert pool.comparison.rounds == 1, "the second round would end behind its time"


def test_a_caller_whose_connection_came_too_late_does_not_ask(database: Target) -> None:
    stop, seen = threading.Event(), _Seen()

    @contextmanager
    def late() -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        stop.set()
        with psycopg.connect(database.url, autocommit=True) as connection:
            yield connection

    _call(late, Bound(name="one", query="select 1 / 0"), 0, stop, seen)
    assert (len(seen.waits), seen.calls, seen.error) == (1, [], None)


def test_a_pool_is_measured_with_one_statement_that_reads_and_with_the_options_of_the_url(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.declare('  benchmarks:\n    queries: [{name: two, sql: "commit; delete from orders"}]\n')
    found = shop.type("bench", "run", "shop", "--pool", "--seconds", "1")
    assert found.code == 3
    assert "cannot insert multiple commands" in found.err
    assert shop.sql("select count(*) from orders") == [(2000,)]
    monkeypatch.setenv("SHOP_URL", make_conninfo(shop.database.url, options="-c work_mem=77MB"))
    seen = "select 1 / (current_setting('work_mem') = '77MB')::int"
    shop.declare(f'  benchmarks:\n    queries: [{{name: seen, sql: "{seen}"}}]\n')
    assert shop.type("bench", "run", "shop", "--pool", "--seconds", "1").code == 0


def test_what_a_time_hangs_on_is_read_and_compared(database: Target) -> None:
    with connect(database, work="test") as connection:
        connection.execute("create table t (a int)")
        before = read_surroundings(connection)
        assert Surroundings.from_json(json.loads(json.dumps(before.as_json()))) == before
        assert (obstacles(before, before), changes(before, before)) == ((), ())
        connection.execute("alter table t add b int")
        connection.execute("set work_mem = '9MB'")
        connection.execute("insert into t select g from generate_series(1, 100) g")
        connection.execute("analyze t")
        after = read_surroundings(connection)
    assert changes(before, after) == (
        "work_mem was 4MB, and is 9MB",
        "the schema is another one",
        "public.t had about 0 rows, and has 100",
    )
    elsewhere = Surroundings.from_json({**before.as_json(), "system": "1", "place": "replica"})
    assert obstacles(before, elsewhere) == (
        "it was measured on another server",
        "it was measured on the primary, now on the replica",
    )


def test_a_declaration_that_cannot_be_meant_is_refused(shop: Shop) -> None:
    for written, sentence in (
        ("queries: [{name: a, sql: select 1, file: a.sql}]", "needs either sql or file"),
        ("queries: [{name: a, file: ../a.sql}]", "must lie below the declaration's folder"),
        ("queries: [{name: a, sql: select 1}, {name: a, sql: select 2}]", "the benchmark a is declared twice"),
        ("notable: 200%", "is no share from 0.5% to 100%"),
        ("scripts: [{name: a, file: a.sql, clients: 0}]", "clients"),
    ):
        shop.declare(f"  benchmarks:\n    {written}\n")
        found = shop.type("bench", "run", "shop")
        assert found.code == 2
        assert sentence in found.err


def test_a_database_without_benchmarks_says_what_to_write_and_still_has_a_pool(shop: Shop) -> None:
    shop.declare("")
    found = shop.type("bench", "run", "shop")
    assert (found.code, "declares no benchmarks" in found.err) == (2, True)
    pool = shop.type("bench", "run", "shop", "--pool", "--seconds", "1", "--json")
    assert pool.code == 0
    assert [one["mode"] for one in pool.json["pool"]] == ["a connection each", "pool of 1", "pool of 2", "pool of 4"]
