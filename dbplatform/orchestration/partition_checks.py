"""Whether the partitions of a table run out: a check of each asset ``partitions/<table>``.

A warning when less than half of what ``premake`` promises is left, an error when new rows find no partition by now.
"""

from functools import partial

import dagster as dg

from dbplatform.declaration.loading import Declared
from dbplatform.operations import partitions
from dbplatform.operations.partitions import Reach
from dbplatform.operations.platform import Platform
from dbplatform.orchestration import keys
from dbplatform.orchestration.asked import Asked, asset_checks
from dbplatform.orchestration.steps import Found
from dbplatform.partitioning.policy import PartitionPolicy

NAME = "runs_out"


def partition_checks(platform: Platform, declared: Declared) -> list[dg.AssetChecksDefinition]:
    """The checks of the partitioned tables of a database; none where it has none."""
    asked = {
        dg.AssetCheckKey(keys.partitions(declared.name, policy.table), NAME): Asked(
            words=f"New rows of {policy.table} find a partition for at least half of the {policy.premake} partitions "
            "that are kept ready.",
            ask=partial(_found, platform, declared, policy),
        )
        for policy in declared.database.partitioned_tables
    }
    return asset_checks(declared, "partition_checks", asked)


def _found(platform: Platform, declared: Declared, policy: PartitionPolicy, run_id: str) -> Found:
    reach = partitions.reach(platform, declared, policy)
    return Found(
        passed=reach.verdict == "enough",
        words=reach.words,
        evidence=_measured(reach),
        severity=dg.AssetCheckSeverity.ERROR if reach.verdict == "over" else dg.AssetCheckSeverity.WARN,
    )


def _measured(reach: Reach) -> dict[str, float | int]:
    document = reach.as_json()
    return {
        name: document[key]
        for key, name in (("horizon_days", "runs out in days"), ("horizon_numbers", "runs out in numbers"))
        if document.get(key) is not None
    } | {"rows in the default partition": document["default_rows"]}
