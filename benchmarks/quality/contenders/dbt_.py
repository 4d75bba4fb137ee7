"""dbt: its own tests where it has them, a query of the failing rows where it has not, two threads."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from workload import condition, given, parts, tell


def generic(check: dict[str, Any]) -> Any:
    """One of dbt's own tests; none where there is none."""
    kind = check["kind"]
    options: dict[str, Any] = {"name": check["name"]}
    if check["where"]:
        options["config"] = {"where": condition(check)}
    if kind == "not_null":
        return {"not_null": options}
    if kind == "unique" and len(check["column"]) == 1:
        return {"unique": options}
    if kind == "accepted":
        return {"accepted_values": {**options, "arguments": {"values": check["values"]}}}
    if kind == "reference":
        to = {"to": f"source('public', '{check['to']}')", "field": check["column"]}
        return {"relationships": {**options, "arguments": to}}
    return None


def singular(check: dict[str, Any]) -> str:
    """A query whose rows are the failures."""
    column, kind, table = check["column"], check["kind"], "{{ source('public', 'orders') }}"
    where = f"{condition(check)} and " if check["where"] else ""
    if kind == "unique":
        key = ", ".join(column)
        return f"select {key} from {table} group by {key} having count(*) > 1"  # noqa: S608
    measured = {
        "row_count": lambda: f"count(*) not between {check['low']} and {check['high']}",
        "freshness": lambda: f"max({column}) < now() - interval '{check['days']} days'",
        "aggregate": lambda: f"{check['function']}({column}) not between {check['low']} and {check['high']}",
        "null_ratio": lambda: f"count(*) filter (where {column} is null) > {check['most']} * count(*)",
    }.get(kind)
    if measured:
        return f"select 1 from {table} having {measured()}"  # noqa: S608
    bad = {
        "range": lambda: f"({column} < '{check['low']}' or {column} > '{check['high']}')",
        "length": lambda: f"length({column}) not between {check['low']} and {check['high']}",
        "regex": lambda: f"{column} !~ '{check['regex']}'",
    }[kind]()
    return f"select {column} from {table} where {where}{bad}"  # noqa: S608


url, checks = given()
at = parts(url)
with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    (folder / "tests").mkdir()
    (folder / "models").mkdir()
    columns: dict[str, list[Any]] = {}
    for check in checks:
        test = generic(check)
        if test is None:
            (folder / "tests" / f"{check['name']}.sql").write_text(singular(check))
        else:
            column = check["column"] if isinstance(check["column"], str) else check["column"][0]
            columns.setdefault(column, []).append(test)
    orders = {"name": "orders", "columns": [{"name": c, "data_tests": tests} for c, tests in columns.items()]}
    tables = [orders, {"name": "customers"}, {"name": "stores"}]
    sources = {"sources": [{"name": "public", "schema": "public", "tables": tables}]}
    (folder / "models" / "sources.yml").write_text(json.dumps(sources))
    project = {"name": "bench", "version": "1.0", "profile": "bench", "flags": {"send_anonymous_usage_stats": False}}
    (folder / "dbt_project.yml").write_text(json.dumps(project))
    output = {
        "type": "postgres",
        "host": at["host"],
        "port": at["port"],
        "user": at["user"],
        "password": at["password"],
        "dbname": at["database"],
        "schema": "public",
        "threads": 2,
    }
    profiles = {"bench": {"target": "dev", "outputs": {"dev": output}}}
    (folder / "profiles.yml").write_text(json.dumps(profiles))
    dbt = Path(sys.executable).parent / "dbt"
    done = subprocess.run(
        [dbt, "test", "--project-dir", folder, "--profiles-dir", folder], capture_output=True, text=True, check=False
    )
    results = folder / "target" / "run_results.json"
    if not results.is_file():
        raise SystemExit(done.stdout + done.stderr)
    found = {}
    kinds = {check["name"]: check["kind"] for check in checks}
    for one in json.loads(results.read_text())["results"]:
        if one["status"] not in ("pass", "fail"):
            raise SystemExit(f"{one['unique_id']}: {one['message']}")
        name = one["unique_id"].split(".")[2]
        # Of accepted values it counts the different ones that are not.
        found[name] = (one["status"] == "pass", None if kinds[name] == "accepted" else one["failures"])
tell(found)
