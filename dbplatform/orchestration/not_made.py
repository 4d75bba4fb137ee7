"""What a dry run says of tables that are not there yet: what a run would do, once its migrations made them."""

from typing import Any

from dbplatform.declaration.loading import Declared
from dbplatform.operations import schema
from dbplatform.operations.platform import Platform
from dbplatform.postgres.catalog import TableMissing


def not_made(platform: Platform, declared: Declared) -> dict[str, str]:
    """The plan of a database in which there is no table yet; nothing of any other."""
    if schema.is_made(platform, declared):
        return {}
    return {"plan": f"{declared.name} is not made yet: a run would make it."}


def would(platform: Platform, declared: Declared, missing: TableMissing, words: str) -> dict[str, Any]:
    """What a step publishes whose table is missing: ``words``; where no migration is left to make it, that it is."""
    waits = declared.database.migrations is not None and bool(schema.plan(platform, declared).pending)
    return {"dry run": True, "plan": words if waits else missing.message}
