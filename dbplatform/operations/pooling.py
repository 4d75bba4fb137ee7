"""The metrics of the pooler of a declared database, where one is declared."""

from __future__ import annotations

from dataclasses import replace

import psycopg
from psycopg.conninfo import conninfo_to_dict

from dbplatform.declaration.loading import Declared
from dbplatform.errors import PlatformError
from dbplatform.monitoring.metrics import Metrics
from dbplatform.monitoring.pooler import NAMES, pools
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target


def added(platform: Platform, declared: Declared, metrics: Metrics) -> Metrics:
    """The collection with the metrics of PgBouncer. One that does not answer leaves them unmeasured."""
    try:
        url = declared.pgbouncer_url_from_environment()
        if url is None:
            reasons = dict.fromkeys(NAMES, "no pooler is declared (connection.pgbouncer_url_env)")
            return replace(metrics, absent={**metrics.absent, **reasons})
        target = platform.existing_target(declared)
        database = str(conninfo_to_dict(target.url).get("dbname", declared.name)) if target else declared.name
        found = pools(Target(f"the pooler of {declared.name}", url), database)
    except (PlatformError, psycopg.Error) as error:
        reason = error.message if isinstance(error, PlatformError) else str(error).strip().splitlines()[0]
        return replace(metrics, unmeasured={**metrics.unmeasured, **dict.fromkeys(NAMES, reason)})
    if not found:
        return replace(metrics, absent={**metrics.absent, **dict.fromkeys(NAMES, "PgBouncer has no pool to it yet")})
    return replace(metrics, values={**metrics.values, **found})
