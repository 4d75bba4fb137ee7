"""This project: as it chooses, or (with a third argument) its plain fusion, one scan of aggregates in the server."""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from workload import condition, given, tell

from dbplatform.postgres.connection import Target, connect
from dbplatform.quality.engine import run_table
from dbplatform.quality.policy import TablePolicy


def declared(check: dict[str, Any]) -> dict[str, Any]:
    """The check as a person declares it."""
    column = check["column"]
    kind, options = {
        "not_null": lambda: ("not_null", {}),
        "unique": lambda: ("unique", {"columns": column}),
        "accepted": lambda: ("accepted_values", {"values": check["values"]}),
        "range": lambda: ("range", {"min": check["low"], "max": check["high"]}),
        "regex": lambda: ("matches", {"regex": check["regex"]}),
        "reference": lambda: ("relationship", {"to": f"public.{check['to']}.{column}"}),
        "row_count": lambda: ("row_count", {"min": check["low"], "max": check["high"]}),
        "freshness": lambda: ("freshness", {"max_age": f"{check['days']} days"}),
        "length": lambda: ("length", {"min": check["low"], "max": check["high"]}),
        "aggregate": lambda: (
            {"avg": "mean", "sum": "sum"}[check["function"]],
            {"min": check["low"], "max": check["high"]},
        ),
        "null_ratio": lambda: ("null_ratio", {"max": check["most"]}),
    }[check["kind"]]()
    if isinstance(column, str):
        options["column"] = column
    if check["where"]:
        options["where"] = condition(check)
    return {kind: options, "name": check["name"]}


url, checks = given()
policy = TablePolicy(table="orders", checks=[declared(check) for check in checks])
stream = False if "fusion" in sys.argv[3:] else None
with connect(Target("benchmark", url), work="benchmark") as connection:
    result = run_table(connection, policy, stream=stream)
tell({check.name: (check.status == "passed", check.failed_rows) for check in result.checks})
