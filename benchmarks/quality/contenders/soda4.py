"""Soda 4: one contract."""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from soda_core.contracts import verify_contract_locally
from workload import condition, given, parts, tell


def of_column(check: dict[str, Any], database: str) -> Any:
    """The check in the contract, below its column."""
    kind = check["kind"]
    options: dict[str, Any] = {"name": check["name"], "qualifier": check["name"]}
    if check["where"]:
        options["filter"] = condition(check)
    if kind == "not_null":
        return {"missing": options}
    if kind == "null_ratio":
        return {
            "missing": {
                **options,
                "threshold": {"metric": "percent", "must_be_less_than_or_equal": check["most"] * 100},
            }
        }
    if kind == "unique":
        return {"duplicate": options}
    if kind == "aggregate":
        between = {"greater_than_or_equal": check["low"], "less_than_or_equal": check["high"]}
        return {"aggregate": {**options, "function": check["function"], "threshold": {"must_be_between": between}}}
    if kind == "range" and isinstance(check["low"], str):  # its valid min and max are numbers
        expression = f"{check['column']} < '{check['low']}' or {check['column']} > '{check['high']}'"
        return {"failed_rows": {**options, "expression": expression}}
    options |= {
        "accepted": lambda: {"valid_values": check["values"]},
        "regex": lambda: {"valid_format": {"regex": check["regex"], "name": check["name"]}},
        "range": lambda: {"valid_min": check["low"], "valid_max": check["high"]},
        "length": lambda: {"valid_min_length": check["low"], "valid_max_length": check["high"]},
        "reference": lambda: {
            "valid_reference_data": {"dataset": f"pg/{database}/public/{check['to']}", "column": check["column"]}
        },
    }[kind]()
    return {"invalid": options}


def of_table(check: dict[str, Any]) -> Any:
    """The check in the contract, of the whole table; none where it belongs to one column."""
    options: dict[str, Any] = {"name": check["name"], "qualifier": check["name"]}
    if check["kind"] == "row_count":
        between = {"greater_than_or_equal": check["low"], "less_than_or_equal": check["high"]}
        return {"row_count": {**options, "threshold": {"must_be_between": between}}}
    if check["kind"] == "freshness":
        threshold = {"unit": "day", "must_be_less_than": check["days"]}
        return {"freshness": {**options, "column": check["column"], "threshold": threshold}}
    if check["kind"] == "unique" and len(check["column"]) > 1:
        return {"duplicate": {**options, "columns": check["column"]}}
    return None


url, checks = given()
at = parts(url)
columns: dict[str, list[Any]] = {}
whole = []
for check in checks:
    if (one := of_table(check)) is not None:
        whole.append(one)
    else:
        name = check["column"] if isinstance(check["column"], str) else check["column"][0]
        columns.setdefault(name, []).append(of_column(check, at["database"]))
contract = {
    "dataset": f"pg/{at['database']}/public/orders",
    "checks": whole,
    "columns": [{"name": name, "checks": made} for name, made in columns.items()],
}
source = {"type": "postgres", "name": "pg", "connection": at}
with tempfile.TemporaryDirectory() as folder:
    for name, content in (("source.yml", source), ("contract.yml", contract)):
        (Path(folder) / name).write_text(json.dumps(content))
    result = verify_contract_locally(
        data_source_file_path=f"{folder}/source.yml", contract_file_path=f"{folder}/contract.yml", publish=False
    )
if result.has_errors:
    raise SystemExit(result.get_errors_str())
found = {}
for one in result.contract_verification_results[0].check_results:
    values = one.diagnostic_metric_values or {}
    count = next(
        (value for key, value in values.items() if key in ("invalid_count", "missing_count", "failed_rows_count")), None
    )
    found[one.check.name] = (one.outcome.name == "PASSED", count)
tell(found)
