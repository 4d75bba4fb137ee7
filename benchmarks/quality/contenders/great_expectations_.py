"""Great Expectations: one suite over the table, validated as a whole."""

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
os.environ["GX_ANALYTICS_ENABLED"] = "false"
import great_expectations as gx
import great_expectations.expectations as e
from great_expectations.expectations.row_conditions import Column
from workload import given, tell


def expectation(check: dict[str, Any]) -> Any:
    """The check as an expectation."""
    column, kind = check["column"], check["kind"]
    options: dict[str, Any] = {"meta": {"name": check["name"]}}
    if check["where"]:
        options["row_condition"] = Column(check["where"][0]) == check["where"][1]
    if kind == "unique" and len(column) > 1:
        return e.ExpectCompoundColumnsToBeUnique(column_list=column, **options)
    if kind == "row_count":
        return e.ExpectTableRowCountToBeBetween(min_value=check["low"], max_value=check["high"], **options)
    if kind == "reference":
        query = f"select {column} from {{batch}} where {column} not in (select {column} from {check['to']})"  # noqa: S608
        return e.UnexpectedRowsExpectation(unexpected_rows_query=query, **options)
    options["column"] = column if isinstance(column, str) else column[0]
    if kind in ("not_null", "null_ratio"):
        return e.ExpectColumnValuesToNotBeNull(mostly=1 - check.get("most", 0), **options)
    if kind == "unique":
        return e.ExpectColumnValuesToBeUnique(**options)
    if kind == "accepted":
        return e.ExpectColumnValuesToBeInSet(value_set=check["values"], **options)
    if kind == "regex":
        return e.ExpectColumnValuesToMatchRegex(regex=check["regex"], **options)
    if kind == "freshness":
        return e.ExpectColumnMaxToBeBetween(min_value=datetime.now(UTC) - timedelta(days=check["days"]), **options)
    low, high = check["low"], check["high"]
    if isinstance(low, str):
        low, high = datetime.fromisoformat(f"{low}T00:00+00:00"), datetime.fromisoformat(f"{high}T00:00+00:00")
    cls = {
        "range": e.ExpectColumnValuesToBeBetween,
        "length": e.ExpectColumnValueLengthsToBeBetween,
        "avg": e.ExpectColumnMeanToBeBetween,
        "sum": e.ExpectColumnSumToBeBetween,
    }[check.get("function", kind)]
    return cls(min_value=low, max_value=high, **options)


url, checks = given()
context = gx.get_context(mode="ephemeral")
context.variables.progress_bars = gx.data_context.types.base.ProgressBarsConfig(globally=False)
source = context.data_sources.add_postgres(
    "pg", connection_string=url.replace("postgresql://", "postgresql+psycopg2://")
)
batch = source.add_table_asset("orders", table_name="orders").add_batch_definition_whole_table("all")
suite = context.suites.add(gx.ExpectationSuite(name="suite", expectations=[expectation(check) for check in checks]))
validation = context.validation_definitions.add(gx.ValidationDefinition(name="v", data=batch, suite=suite))
result = validation.run(result_format="BASIC")
found = {}
for one in result.results:
    if "'raised_exception': True" in str(one.exception_info):
        raise SystemExit(str(one.exception_info)[-2000:])
    found[one.expectation_config.meta["name"]] = (one.success, one.result.get("unexpected_count"))
tell(found)
