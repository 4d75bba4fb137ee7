"""What a plan looks for is read from PostgreSQL's own words; what cannot be read asks for no index."""

from __future__ import annotations

import pytest

from dbplatform.advice.actions import Action, statement
from dbplatform.advice.measure import effect
from dbplatform.advice.plans import conditions, read_plan
from dbplatform.advice.policy import AdvicePolicy
from dbplatform.advice.server import Server, pools_advice, setting_advice


@pytest.mark.parametrize(
    ("text", "expected", "complete"),
    [
        ("(o.a = $1)", [("a", "=", 1)], True),
        ("((o.a = $1) AND (o.b > $2))", [("a", "=", 1), ("b", ">", 2)], True),
        ("((o.name)::text = $1)", [("name", "=", 1)], True),
        ("((o.name)::text = ($1)::text)", [("name", "=", 1)], True),
        ("(o.id = ANY ($3))", [("id", "=", 3)], True),
        ("(o.gone IS NULL)", [("gone", "=", None)], True),
        ("(($1 < o.b) AND (o.c = 'x AND y'::text))", [("b", ">", 1), ("c", "=", None)], True),
        ('(o."a b" = $1)', [("a b", "=", 1)], True),
        ("((o.a = $1) OR (o.b = $2))", [], False),
        ("(lower(o.a) = $1)", [], False),
        ("(o.a = o.b)", [], False),
        ("(o.a = (SubPlan 1))", [], False),
        ("(o.a <> $1)", [], False),
        ("(o.tags @> $1)", [("tags", "@>", 1)], True),
        ("", [], True),
    ],
)
def test_the_comparisons_of_a_condition_are_read(
    text: str, expected: list[tuple[str, str, int | None]], complete: bool
) -> None:
    found, all_of_it = conditions(text)
    assert [(one.column, one.operator, one.parameter) for one in found] == expected
    assert {one.alias for one in found} <= {"o"}
    assert all_of_it is complete


def test_a_scan_below_a_sort_and_a_limit_has_its_order() -> None:
    scan = {
        "Node Type": "Seq Scan",
        "Schema": "public",
        "Relation Name": "visit",
        "Alias": "v",
        "Filter": "(v.site = $1)",
        "Plan Rows": 40,
        "Total Cost": 900.0,
    }
    sort = {
        "Node Type": "Sort",
        "Sort Key": ["v.day DESC"],
        "Plans": [scan],
        "Plan Rows": 40,
        "Total Cost": 910.0,
    }
    limit = {"Node Type": "Limit", "Plans": [sort], "Plan Rows": 4, "Total Cost": 911.0}
    plan = read_plan(limit)
    (found,) = plan.scans
    assert (found.order, found.limit, found.cost) == (("day",), 4.0, 911.0)
    assert plan.parameters[1][1] == "site"
    assert plan.reads_only


def test_a_change_is_kept_as_what_it_does_and_becomes_the_same_statement_again() -> None:
    index = Action(verb="create_index", schema="public", table="t", name="t_a_idx", columns=("a", 'b"c'))
    assert Action.from_json(index.as_json()) == index
    assert statement(index) == 'CREATE INDEX CONCURRENTLY "t_a_idx" ON "public"."t" USING "btree" ("a", "b""c")'
    again = Action(
        verb="recreate_index", schema="s", name="i", definition="CREATE UNIQUE INDEX i ON s.t USING btree (a)"
    )
    assert statement(again) == "CREATE UNIQUE INDEX CONCURRENTLY i ON s.t USING btree (a)"
    options = Action(verb="table_options", schema="s", name="t", values={"autovacuum_vacuum_threshold": None})
    assert statement(options) == 'ALTER TABLE "s"."t" RESET ("autovacuum_vacuum_threshold")'
    assert statement(Action(verb="setting", name="work_mem", values={"work_mem": None})).endswith('RESET "work_mem"')


def test_a_statement_that_costs_more_is_named_and_one_that_is_new_is_not_compared() -> None:
    before = [{"queryid": "1", "cost": 100.0, "calls": 9}, {"queryid": "2", "cost": 10.0, "calls": 1}]
    after = [{"queryid": "1", "cost": 10.0, "calls": 9}, {"queryid": "2", "cost": 20.0, "calls": 1}]
    found = effect(before, [*after, {"queryid": "3", "cost": 1.0, "calls": 1}])
    assert found.worse == ("2",)
    assert found.gain == pytest.approx(1 - 110 / 910, abs=1e-4)
    assert effect((), after).gain is None


_GB = 1 << 30


def advised(*, memory: int | None, storage: str | None = None, **different: float) -> dict[str, str]:
    """The settings that are advised, for a server whose settings are PostgreSQL's own."""
    settings = {
        "shared_buffers": 128 << 20,
        "work_mem": 4 << 20,
        "effective_cache_size": 4 * _GB,
        "random_page_cost": 4.0,
        "max_wal_size": _GB,
        "max_connections": 100,
    }
    counted = {"database_bytes": 100 * _GB, "temp_files": 0, "temp_bytes": 0, "timed": 100, "requested": 5}
    server = Server(
        settings={name: different.get(name, value) for name, value in settings.items()},
        set_by_file={"work_mem": "5MB"},
        **{name: different.get(name, value) for name, value in counted.items()},  # type: ignore[arg-type]
    )
    policy = AdvicePolicy.model_validate({"storage": storage} if storage else {})
    found = list(setting_advice("shop", server, policy, memory))
    assert {one.undo_sql for one in found if one.subject == "work_mem"} <= {"ALTER SYSTEM SET \"work_mem\" = '5MB'"}
    return {one.subject: str((one.action.values if one.action else {})[one.subject]) for one in found}


def test_settings_are_advised_against_a_machine_that_is_known_and_data_that_do_not_fit() -> None:
    assert advised(memory=None) == {}
    assert advised(memory=64 * _GB) == {"shared_buffers": "16384MB", "effective_cache_size": "49152MB"}
    assert "shared_buffers" not in advised(memory=64 * _GB, database_bytes=50 << 20)
    assert advised(memory=16 * _GB, shared_buffers=4 * _GB) == {}
    assert advised(memory=16 * _GB, shared_buffers=4 * _GB, temp_files=500)["work_mem"] == "41MB"
    assert advised(memory=16 * _GB, shared_buffers=4 * _GB, work_mem=_GB)["work_mem"] == "41MB"
    assert advised(memory=None, storage="ssd") == {"random_page_cost": "1.1"}
    assert advised(memory=None, requested=200) == {"max_wal_size": "2048MB"}
    assert advised(memory=None, requested=8, timed=0) == {}, "too few to speak of a habit"


def test_pools_that_exceed_the_connections_of_their_server_are_advised() -> None:
    (found,) = pools_advice("shop", {"shop": 75, "till": 50}, 97)
    assert (found.severity, found.action) == ("warning", None)
    assert "125 connections (75 of shop + 50 of till), and it has 97" in found.reason
    assert not list(pools_advice("shop", {"shop": 75}, 97))
