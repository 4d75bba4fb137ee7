"""The names of the graph: asset keys, groups, pools and jobs of one declared database."""

import dagster as dg

from dbplatform.postgres.identifiers import Relation


def migrations(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "migrations"])


def rehearsal(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "rehearsal"])


def partitions(database: str, relation: Relation) -> dg.AssetKey:
    return dg.AssetKey([database, "partitions", relation.word])


def periods(database: str, relation: Relation) -> dg.AssetKey:
    return dg.AssetKey([database, "periods", relation.word])


def periods_name(database: str, relation: Relation) -> str:
    """The job of the periods of a table, and the set of them where Dagster is told which there are."""
    return f"{database}_periods_{relation.word}"


def retirement(database: str, relation: Relation) -> dg.AssetKey:
    return dg.AssetKey([database, "retirement", relation.word])


def live(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "live"])


def seed(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "seed"])


def table(database: str, relation: Relation) -> dg.AssetKey:
    return dg.AssetKey([database, "tables", relation.word])


def quality_report(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "quality_report"])


def backup(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "backup"])


def physical_backup(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "physical_backup"])


def physical_retention(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "physical_retention"])


def recovery_drill(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "recovery_drill"])


def restore_drill(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "restore_drill"])


def restore_name(database: str) -> str:
    """The job that restores. Only a person starts it, who sees how it ends."""
    return f"{database}_restore"


def review_name(database: str) -> str:
    """The job that notes a review. Only a person starts it, who sees how it ends."""
    return f"{database}_review"


def backup_retention(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "backup_retention"])


def archive(database: str, name: str) -> dg.AssetKey:
    return dg.AssetKey([database, "archive", name])


def metrics(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "metrics"])


def health(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "health"])


def advice(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "advice"])


def capacity(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "capacity"])


def benchmarks(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "benchmarks"])


def alerts(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "alerts"])


def maintenance(database: str, what: str) -> dg.AssetKey:
    return dg.AssetKey([database, "maintenance", what])


def pool(database: str) -> str:
    """The pool that lets one writing step of a database run at a time."""
    return f"{database}_writer"
