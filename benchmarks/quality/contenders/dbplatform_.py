"""This project: as it chooses, or (with a third argument) its plain fusion, one scan of aggregates in the server."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from declared import declared
from workload import given, tell

from dbplatform.postgres.connection import Target, connect
from dbplatform.quality.engine import run_table
from dbplatform.quality.policy import TablePolicy

url, checks = given()
policy = TablePolicy(table="orders", checks=[declared(check) for check in checks])
stream = False if "fusion" in sys.argv[3:] else None
with connect(Target("benchmark", url), work="benchmark") as connection:
    result = run_table(connection, policy, stream=stream)
tell({check.name: (check.status == "passed", check.failed_rows) for check in result.checks})
