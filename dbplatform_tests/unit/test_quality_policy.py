"""What may be declared about the quality of a table, and how a mistake is told."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from dbplatform.postgres.identifiers import Relation
from dbplatform.quality.checks import CHECK_TYPES
from dbplatform.quality.checks.bounds import within
from dbplatform.quality.checks.options import Acceptance
from dbplatform.quality.checks.tolerance import Tolerance
from dbplatform.quality.policy import TablePolicy
from dbplatform.quality.results import CheckResult, TableResult, verdict_of


def policy(*checks: Any) -> TablePolicy:
    return TablePolicy(table="public.flights", checks=list(checks))


def mistakes(*checks: Any) -> list[tuple[tuple[Any, ...], str]]:
    with pytest.raises(ValidationError) as caught:
        policy(*checks)
    return [(error["loc"], error["msg"].removeprefix("Value error, ")) for error in caught.value.errors()]


def mistake(check: Any) -> tuple[tuple[Any, ...], str]:
    ((loc, text),) = mistakes({"not_null": "other"}, check)
    assert loc[:2] == ("checks", 1)
    assert "\n" not in text
    return loc[2:], text


CONTRACT = [
    {"not_null": "tailnum"},
    {"unique": ["carrier", "flight", "origin", "time_hour"]},
    {"accepted_values": {"column": "origin", "values": ["EWR", "JFK", "LGA"]}},
    {"range": {"column": "distance", "min": 1, "max": 6000}},
    {"matches": {"column": "tailnum", "regex": "^N[0-9A-Z]+$", "severity": "warn"}},
    {"length": {"column": "dest", "min": 3, "max": 3}},
    {"relationship": {"column": "tailnum", "to": "public.planes.tailnum", "tolerance": "1%"}},
    {"null_ratio": {"column": "dep_time", "max": 0.03}},
    {"mean": {"column": "dep_delay", "min": -5, "max": 30}},
    {"sum": {"column": "distance", "min": 1}},
    {"row_count": {"min": 300000}},
    {"freshness": {"column": "time_hour", "max_age": "1 day", "severity": "warn"}},
    {"schema": {"columns": {"tailnum": "text"}}},
    {"anomaly": {"metric": "row_count", "seasonality": "day_of_week"}},
    {"sql": {"name": "arrives_after_departing", "rows": "select * from flights where arr_time is not null;"}},
]


def test_every_check_of_the_contract_is_read_as_the_model_of_its_type() -> None:
    checks = policy(*CONTRACT).checks
    assert [type(check) for check in checks] == [CHECK_TYPES[next(iter(written))] for written in CONTRACT]
    assert {check.type for check in checks} == set(CHECK_TYPES)


def test_names_are_derived_from_type_and_columns_where_none_is_given() -> None:
    names = [check.name for check in policy(*CONTRACT).checks]
    assert names[:2] == ["not_null_tailnum", "unique_carrier_flight_origin_time_hour"]
    assert names[6:8] == ["relationship_tailnum", "null_ratio_dep_time"]
    assert names[10:13] == ["row_count", "freshness_time_hour", "schema"]
    assert names[13:] == ["anomaly_row_count", "arrives_after_departing"]
    (odd,) = policy({"not_null": '"We ird%""col"'}).checks
    assert odd.name == "not_null_we_ird__col"


def test_an_acceptance_may_be_a_mapping_or_a_day_with_a_reason_beside_it() -> None:
    whole, beside = policy(
        {"not_null": "a", "accepted_until": {"date": "2026-12-31", "reason": "known  since\nMay"}},
        {"range": {"column": "a", "min": 1, "accepted_until": date(2026, 12, 31)}, "reason": "known since May"},
    ).checks
    assert whole.accepted_until == beside.accepted_until == Acceptance(date(2026, 12, 31), "known since May")


def test_masks_are_a_list_or_have_a_kind_each() -> None:
    checks = [{"not_null": "a"}]
    assert TablePolicy(table="t", mask=["a", '"B"'], checks=checks).mask == {"a": "redact", "B": "redact"}
    assert TablePolicy(table="t", mask={"a": "hash"}, checks=checks).mask == {"a": "hash"}
    for wrong, text in ((["a", "a"], "masked twice"), ({"a": "blur"}, "'redact', 'hash' or 'partial'"), ("a", "dict")):
        with pytest.raises(ValidationError, match=text):
            TablePolicy(table="t", mask=wrong, checks=checks)


def test_options_may_stand_in_the_mapping_or_beside_the_type() -> None:
    inside, beside = policy(
        {"range": {"column": "a", "min": 1, "name": "x", "where": "b > 0", "severity": "warn", "blocking": True}},
        {"range": {"column": "a", "min": 1}, "name": "y", "where": "b > 0", "severity": "warn", "blocking": True},
    ).checks
    assert inside.model_copy(update={"name": "y"}) == beside
    (bare,) = policy({"not_null": "tailnum", "severity": "warn", "owner": "team:ops", "tolerance": 5}).checks
    assert (bare.severity, bare.owner) == ("warn", "team:ops")
    assert bare.model_dump()["tolerance"] == "5 rows"


def test_a_unique_check_takes_one_column_a_list_or_a_mapping() -> None:
    one, many, mapping = policy({"unique": "a"}, {"unique": ["a", "b"]}, {"unique": {"column": "c"}}).checks
    assert [c.columns_read for c in (one, many, mapping)] == [("a",), ("a", "b"), ("c",)]


def test_every_check_describes_itself_for_a_person() -> None:
    assert [check.description for check in policy(*CONTRACT).checks][3] == "range: column distance, min 1, max 6000"


def test_the_policy_has_a_json_schema_with_every_type() -> None:
    item = TablePolicy.model_json_schema()["properties"]["checks"]["items"]
    assert set(CHECK_TYPES) <= set(item["properties"])


@pytest.mark.parametrize(
    ("check", "loc", "words"),
    [
        ({"range": {"column": "a", "min": True}}, ("range", "min"), "True is not a number"),
        ({"range": {"column": "a", "min": 5, "max": 1}}, ("range", "min"), "min 5 is greater than max 1"),
        ({"range": {"column": "a", "min": "2021-01-02", "max": "2021-01-01"}}, ("range", "min"), "greater"),
        ({"range": {"column": "a", "min": 1, "max": "now"}}, ("range", "min"), "different kinds"),
        ({"range": {"column": "a", "min": float("nan")}}, ("range", "min"), "not a number"),
        ({"range": {"column": "a"}}, ("range",), "give min, max or both"),
        ({"range": {"min": 1}}, ("range",), "range needs column"),
        ({"range": "a"}, ("range",), "range needs its options"),
        ({"range": {"column": "a", "min": 1, "tolerance": "101%"}}, ("range", "tolerance"), "between 0% and 100%"),
        ({"range": {"column": "a", "min": 1}, "tolerance": "101%"}, ("tolerance",), "between 0% and 100%"),
        ({"not_null": "a", "tolerance": -1}, ("tolerance",), "negative"),
        ({"not_null": "a", "tolerance": 0.5}, ("tolerance",), "neither a number of rows"),
        ({"not_null": "a", "tolerance": "nan%"}, ("tolerance",), "neither a number of rows"),
        ({"not_null": "a", "severity": "fatal"}, ("severity",), "'warn' or 'error'"),
        ({"not_null": "a", "blocking": "yes"}, ("blocking",), "boolean"),
        ({"not_null": "a", "where": "  "}, ("where",), "not empty"),
        ({"not_null": "a", "where": "a = '\0'"}, ("where",), "NUL"),
        ({"not_null": "a", "name": "Not Null"}, ("name",), "lower-case"),
        ({"not_null": "a", "accepted_until": "2026-01-01"}, ("accepted_until",), "accepted_until needs a reason"),
        ({"not_null": {"column": "a", "accepted_until": "x"}}, ("not_null", "accepted_until"), "needs a reason"),
        ({"not_null": "a", "accepted_until": {"date": "2026-01-01"}}, ("accepted_until",), "needs a reason"),
        ({"not_null": "a", "accepted_until": {"date": "soon", "reason": "x"}}, ("accepted_until",), "not a day"),
        (
            {"not_null": "a", "accepted_until": {"date": "2026-01-01", "reason": "x", "by": 1}},
            ("accepted_until",),
            "by",
        ),
        ({"not_null": "a", "reason": "x"}, ("reason",), "beside accepted_until"),
        ({"unique": "a", "quarantine": True}, ("quarantine",), "does not judge each row by itself"),
        ({"sql": {"name": "x", "rows": "select 1", "quarantine": True}}, ("sql", "quarantine"), "leave quarantine out"),
        ({"row_count": {"min": 1}, "quarantine": True}, ("quarantine",), "does not judge each row by itself"),
        ({"not_null": "a", "quarantine": "yes"}, ("quarantine",), "quarantine: true"),
        ({"unique": "a", "sample": "1%"}, ("sample",), "proves nothing on a sample: the other row"),
        ({"row_count": {"min": 1, "sample": "1%"}}, ("row_count", "sample"), "the rows of the sample"),
        ({"sum": {"column": "a", "min": 1}, "sample": "1%"}, ("sample",), "the rows that were read"),
        ({"freshness": {"column": "a", "max_age": "1 day"}, "sample": "1%"}, ("sample",), "the newest value may"),
        ({"anomaly": {"metric": "row_count"}, "sample": "1%"}, ("sample",), "its past is that of all rows"),
        ({"sql": {"name": "x", "rows": "select 1"}, "sample": "1%"}, ("sample",), "a TABLESAMPLE, too"),
        ({"schema": {"columns": {"a": "text"}}, "sample": "1%"}, ("sample",), "it reads no rows"),
        ({"not_null": "a", "sample": "1"}, ("sample",), "is no part of a table"),
        ({"not_null": "a", "sample": "0%"}, ("sample",), "is not between 0% and 100%"),
        ({"not_null": "a", "sample": "101%"}, ("sample",), "is not between 0% and 100%"),
        ({"not_null": "a", "sample": "0 rows"}, ("sample",), "has no row"),
        ({"not_null": "a", "sample": "1% of them"}, ("sample",), "is no part of a table"),
        ({"not_null": "a", "sample": "1% slow"}, ("sample",), "slow is no method"),
        ({"not_null": {"column": "a", "tolerance": 3, "sample": "1%"}}, ("not_null", "tolerance"), "in percent"),
        ({"not_null": "a", "quarantine": True, "sample": "1%"}, ("quarantine",), "not those of a sample"),
        ({"not_null": "a", "quarantine": {"at_most": "many"}}, ("quarantine", "at_most"), "neither a number of rows"),
        ({"not_null": "a", "keep_rows": -1}, ("keep_rows",), "greater than or equal to 0"),
        ({"row_count": {"min": 1}, "keep_rows": 5}, ("keep_rows",), "has no option 'keep_rows'"),
        ({"not_null": ["a", "b"]}, ("not_null",), "not the name of a column"),
        ({"not_null": "a b"}, ("not_null",), "not a name"),
        ({"not_null": '"a\0"'}, ("not_null",), "not a name"),
        ({"not_null": None}, ("not_null",), "needs its options"),
        ({"not_null": {"column": "a", "name": "x"}, "name": "y"}, ("name",), "given twice"),
        ({"not_null": {"column": "a", "max": 1}}, ("not_null", "max"), "has no option 'max'; it has column, name"),
        ({"unique": []}, ("unique",), "at least one"),
        ({"unique": ["a", 5]}, ("unique", 1), "not the name of a column"),
        ({"unique": ["a", "a"]}, ("unique",), "twice"),
        ({"accepted_values": {"column": "a", "values": []}}, ("accepted_values", "values"), "at least one"),
        ({"accepted_values": {"column": "a", "values": ["x", None]}}, ("accepted_values", "values", 1), "not a number"),
        ({"matches": {"column": "a", "regex": ""}}, ("matches", "regex"), "not empty"),
        ({"length": {"column": "a", "min": -1}}, ("length", "min"), "at least 0"),
        ({"length": {"column": "a", "max": 2.5}}, ("length", "max"), "whole number"),
        ({"relationship": {"column": "a", "to": "planes"}}, ("relationship", "to"), "schema.table.column"),
        ({"null_ratio": {"column": "a", "max": 3}}, ("null_ratio", "max"), "between 0 and 1"),
        ({"mean": {"column": "a", "max": 3, "tolerance": 1}}, ("mean", "tolerance"), "has no option 'tolerance'"),
        ({"row_count": {"min": 3.5}}, ("row_count", "min"), "whole number"),
        ({"row_count": {"min": 2, "max": 1}}, ("row_count", "min"), "greater"),
        ({"freshness": {"column": "a", "max_age": "soon"}}, ("freshness", "max_age"), "not an interval"),
        ({"freshness": {"column": "a"}}, ("freshness",), "freshness needs max_age"),
        ({"schema": {"columns": ["a"]}}, ("schema", "columns"), "should be a mapping"),
        ({"accepted_values": {"column": "a", "values": "x"}}, ("accepted_values", "values"), "should be a list"),
        ({"schema": {"columns": {}}}, ("schema", "columns"), "at least one"),
        ({"schema": {"columns": {"a": 5}}}, ("schema", "columns", "a"), "not empty"),
        ({"schema": {"columns": {"a": "text"}}, "where": "true"}, ("where",), "has no option 'where'"),
        ({"sql": {"rows": "select 1"}}, ("sql",), "sql needs a name"),
        ({"sql": {"name": "x", "rows": " ; "}}, ("sql", "rows"), "query"),
        ({"anomaly": "row_count"}, ("anomaly",), "anomaly needs its options"),
        ({"anomaly": {"metric": "rows"}}, ("anomaly", "metric"), "row_count"),
        ({"anomaly": {"metric": "mean"}}, ("anomaly", "metric"), "the metric mean needs a column"),
        ({"anomaly": {"metric": "row_count", "column": "a"}}, ("anomaly", "column"), "without a column"),
        ({"anomaly": {"metric": "freshness", "column": "a", "by": "a"}}, ("anomaly", "by"), "an age now"),
        ({"anomaly": {"metric": "row_count", "lag": "2 days"}}, ("anomaly", "lag"), "name it with by"),
        ({"anomaly": {"metric": "row_count", "time_zone": "Mars"}}, ("anomaly", "time_zone"), "no time zone"),
        ({"anomaly": {"metric": "row_count", "min_history": 1}}, ("anomaly", "min_history"), "greater than"),
        (
            {"anomaly": {"metric": "row_count", "by": "a", "seasonality": "day_of_week", "window": "3 days"}},
            ("anomaly", "window"),
            "shorter than 28 days",
        ),
        ({"notnull": "a"}, ("notnull",), "did you mean not_null?"),
        ({"not_null": "a", "severty": "warn"}, ("severty",), "did you mean severity?"),
        ({"not_null": "a", "unique": "a"}, ("unique",), "one type, not not_null and unique"),
        ({"severity": "warn"}, (), "needs a type"),
        ("not_null", (), "is no check"),
    ],
)
def test_a_mistake_is_one_sentence_at_its_path_in_the_file(check: Any, loc: tuple[Any, ...], words: str) -> None:
    found, text = mistake(check)
    assert found == loc
    assert words in text


def test_the_allowed_types_are_named_where_a_type_is_unknown() -> None:
    _, text = mistake({"nonsense": "a"})
    assert all(kind in text for kind in CHECK_TYPES)


def test_all_mistakes_of_all_checks_are_told_at_once() -> None:
    found = mistakes({"nonsense": 1}, {"not_null": "a"}, {"range": {"column": 5, "min": "x", "max": []}})
    assert [loc for loc, _ in found] == [
        ("checks", 0, "nonsense"),
        ("checks", 2, "range", "max"),
        ("checks", 2, "range", "column"),
    ]


def test_two_checks_of_one_name_are_refused_at_the_second() -> None:
    ((loc, text),) = mistakes({"not_null": "a"}, {"not_null": "b"}, {"not_null": "a", "where": "b > 0"})
    assert loc == ("checks", 2)
    assert "check 1 has the name not_null_a" in text


def test_a_table_without_checks_is_refused() -> None:
    ((loc, text),) = mistakes()
    assert loc == ("checks",)
    assert "at least one check" in text


def test_dates_of_yaml_become_text_that_postgresql_reads() -> None:
    (check,) = policy(
        {"range": {"column": "a", "min": date(2020, 1, 1), "max": datetime(2021, 1, 1, 12, tzinfo=UTC)}}
    ).checks
    assert check.model_dump()["min"] == "2020-01-01"
    assert check.model_dump()["max"] == "2021-01-01T12:00:00+00:00"


def test_a_policy_of_checks_that_are_models_already_is_itself() -> None:
    first = policy(*CONTRACT)
    assert TablePolicy(table=Relation("public", "flights"), checks=first.checks) == first


def test_a_tolerance_in_percent_is_exact() -> None:
    percent = Tolerance.parse("0.1%")
    assert percent.percent == Decimal("0.1")
    assert percent.allows(1, 1000)
    assert not percent.allows(1, 999)
    assert Tolerance.parse("0%").allows(0, 0)
    assert not Tolerance.parse(3).allows(4, 10**9)


def test_bounds_compare_decimals_as_decimals_and_nan_with_nothing() -> None:
    assert within(Decimal("0.3"), 0.3, 0.3)
    assert within(7, 7, None)
    assert not within(float("nan"), None, 1)
    assert not within(Decimal("NaN"), 0, None)


def result(status: Any, **fields: Any) -> CheckResult:
    values: dict[str, Any] = {
        "name": "x",
        "type": "mean",
        "column": "a",
        "status": status,
        "severity": "error",
        "blocking": False,
        "owner": None,
        "failed_rows": None,
        "considered_rows": 1,
        "value": 1.0,
        "tolerance": None,
        "message": "m",
        "sql": None,
    }
    return CheckResult(**{**values, **fields})


def table(*checks: CheckResult) -> TableResult:
    return TableResult(table="public.a", row_count=1, checks=checks, seconds=0.1)


def test_the_verdict_is_errored_before_failed_before_passed_and_never_passed_for_nothing() -> None:
    assert verdict_of([table(result("passed")), table(result("failed", severity="warn"))]) == "failed"
    assert verdict_of([table(result("failed"), result("errored"))]) == "errored"
    assert verdict_of([table(result("passed"))]) == "passed"
    assert verdict_of([]) == "errored"


def test_a_check_blocks_when_it_is_declared_so_and_failed_and_its_rows_are_still_there() -> None:
    assert result("failed", blocking=True, failed_rows=3).blocks
    assert result("failed", blocking=True, failed_rows=3, quarantined_rows=2).blocks
    assert result("failed", blocking=True, failed_rows=None, quarantined_rows=0).blocks
    assert not result("failed", blocking=True, failed_rows=3, quarantined_rows=3).blocks
    assert not result("failed", blocking=True, severity="warn").blocks
    assert not result("accepted", blocking=True).blocks
    assert not result("failed").blocks


def test_an_acceptance_that_ends_soon_is_known_by_the_days_that_are_left() -> None:
    accepted = result("accepted", accepted_until=date(2026, 3, 10))
    assert accepted.acceptance_ends(date(2026, 3, 9)) == 1
    assert accepted.acceptance_ends(date(2026, 2, 24)) == 14
    assert accepted.acceptance_ends(date(2026, 2, 23)) is None
    assert result("failed", accepted_until=date(2026, 3, 10)).acceptance_ends(date(2026, 3, 9)) is None


def test_a_value_that_json_cannot_hold_is_null() -> None:
    assert result("failed", value=float("nan")).as_json()["value"] is None
    assert table(result("passed")).as_json()["checks"][0]["status"] == "passed"


def test_a_sample_of_the_table_is_for_the_checks_that_allow_it_and_do_not_say_otherwise() -> None:
    written: list[Any] = [
        {"not_null": "a"},
        {"not_null": {"column": "b", "sample": "all"}},
        {"not_null": {"column": "c", "sample": "1_000 rows bernoulli"}},
        {"unique": "a"},
    ]
    found = TablePolicy.model_validate({"table": "t", "sample": "2.5%", "checks": written})
    wishes = [found.sample_of(check) for check in found.checks]
    assert [str(wish) for wish in wishes] == ["2.5%", "None", "1,000 rows bernoulli", "None"]
    assert TablePolicy.model_validate(found.model_dump(mode="json", include={"table", "sample"}) | {"checks": written})
    everything = found.of_all_rows
    assert [everything.sample_of(check) for check in everything.checks] == [None] * 4


@pytest.mark.parametrize(
    ("check", "loc", "text"),
    [
        ({"not_null": {"column": "a", "tolerance": 3}}, ("checks", 0), "or write sample: all for not_null_a"),
        ({"not_null": "a", "quarantine": True}, ("checks", 0), "or write sample: all for not_null_a"),
        ({"unique": "a"}, ("checks",), "leave sample out of the table"),
    ],
)
def test_a_sample_of_the_table_that_fits_no_check_or_not_this_one_is_refused(
    check: Any, loc: tuple[Any, ...], text: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        TablePolicy.model_validate({"table": "t", "sample": "1%", "checks": [check]})
    (error,) = caught.value.errors()
    assert error["loc"] == loc
    assert text in error["msg"]
