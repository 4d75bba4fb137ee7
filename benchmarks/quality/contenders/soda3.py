"""Soda 3, the open source one: one scan of SodaCL checks."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from soda.scan import Scan
from workload import condition, given, parts, tell


def sodacl(check: dict[str, Any]) -> Any:
    """The check in SodaCL."""
    column, kind = check["column"], check["kind"]
    options: dict[str, Any] = {"name": check["name"]}
    if check["where"]:
        options["filter"] = condition(check)
    if kind == "not_null":
        return {f"missing_count({column}) = 0": options}
    if kind == "unique":
        return {f"duplicate_count({', '.join(column)}) = 0": options}
    if kind == "row_count":
        return {f"row_count between {check['low']} and {check['high']}": options}
    if kind == "reference":
        return {f"values in ({column}) must exist in {check['to']} ({column})": options}
    if kind == "freshness":
        return {f"freshness({column}) < {check['days']}d": options}
    if kind == "null_ratio":
        return {f"missing_percent({column}) <= {check['most'] * 100:g}": options}
    if kind == "aggregate":
        return {f"{check['function']}({column}) between {check['low']} and {check['high']}": options}
    if kind == "range" and isinstance(check["low"], str):  # its valid min and max are numbers
        fail = f"{column} < '{check['low']}' or {column} > '{check['high']}'"
        return {"failed rows": {"name": check["name"], "fail condition": fail, "samples limit": 0}}
    options |= {
        "accepted": lambda: {"valid values": check["values"]},
        "regex": lambda: {"valid regex": check["regex"]},
        "range": lambda: {"valid min": check["low"], "valid max": check["high"]},
        "length": lambda: {"valid min length": check["low"], "valid max length": check["high"]},
    }[kind]()
    return {f"invalid_count({column}) = 0": options}


url, checks = given()
at = parts(url)
scan = Scan()
scan.set_data_source_name("pg")
connection = {
    "type": "postgres",
    "host": at["host"],
    "port": at["port"],
    "username": at["user"],
    "password": at["password"],
    "database": at["database"],
    "schema": "public",
}
scan.add_configuration_yaml_str(json.dumps({"data_source pg": connection}))
scan.add_sodacl_yaml_str(json.dumps({"checks for orders": [sodacl(check) for check in checks]}))
scan.disable_telemetry() if hasattr(scan, "disable_telemetry") else None
scan.execute()
if scan.has_error_logs():
    raise SystemExit(scan.get_error_logs_text())
found = {}
for one in scan.get_scan_results()["checks"]:
    value = one["diagnostics"].get("value") if isinstance(one.get("diagnostics"), dict) else None
    found[one["name"]] = (one["outcome"] == "pass", value)
tell(found)
