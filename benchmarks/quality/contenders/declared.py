"""A check of the workload as a person declares it here."""

from __future__ import annotations

from typing import Any

from workload import condition


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
