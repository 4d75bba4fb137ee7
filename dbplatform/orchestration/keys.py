"""The names of the graph: asset keys, groups, pools and jobs of one declared database."""

import re

import dagster as dg

from dbplatform.postgres.identifiers import Relation


def table_word(relation: Relation) -> str:
    """A table's part of an asset key: its name; with the schema in front where that is not ``public``."""
    name = relation.name if relation.schema == "public" else f"{relation.schema}__{relation.name}"
    return re.sub(r"[^A-Za-z0-9_]", "_", name)


def migrations(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "migrations"])


def partitions(database: str, relation: Relation) -> dg.AssetKey:
    return dg.AssetKey([database, "partitions", table_word(relation)])


def seed(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "seed"])


def table(database: str, relation: Relation) -> dg.AssetKey:
    return dg.AssetKey([database, "tables", table_word(relation)])


def quality_report(database: str) -> dg.AssetKey:
    return dg.AssetKey([database, "quality_report"])


def pool(database: str) -> str:
    """The pool that lets one writing step of a database run at a time."""
    return f"{database}_writer"
