"""From alerts that fire to the runs of ``on_breach``: what the watch asks Dagster to begin, and what became of it."""

from collections.abc import Sequence
from datetime import datetime

import dagster as dg

from dbplatform.alerting import healing
from dbplatform.alerting.healing import Begun, Outcome
from dbplatform.declaration.loading import Declared
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.schedules import hindrance

#: The tags of a run that an alert began.
KEY, ALERT = "dbplatform/on_breach", "dbplatform/alert"
#: What goes on in a freeze: it changes nothing in the database.
_HARMLESS = ("backup", "restore_drill")
_FAILED = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


def targets(databases: Sequence[Declared]) -> list[dg.AssetKey]:
    """The assets that alerts may begin."""
    return [_asset(one.name, work) for one in databases for work in sorted(set(one.database.on_breach.values()))]


def begin(
    platform: Platform,
    databases: Sequence[Declared],
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    now: datetime,
) -> tuple[list[dg.RunRequest], list[str]]:
    """The runs to begin, once for each alert that fires, and what is held back, in words.

    A run that Dagster does not know was lost, as when the daemon is killed, and is asked for again.
    """
    held: list[str] = []
    for declared in databases:
        if on_breach := declared.database.on_breach:
            reason = hindrance(declared, now)
            waiting = {work: reason for work in on_breach.values() if reason and work not in _HARMLESS}
            found = healing.begin(platform.ledger, declared.name, on_breach, now=now, waiting=waiting)
            held += [str(one) for one in found]
    requests, known = [], {key for key in targets(databases) if repository.asset_graph.has(key)}
    for begun in healing.going_on(platform.ledger, now=now) if targets(databases) else ():
        run = next(iter(instance.get_runs(dg.RunsFilter(tags={KEY: begun.key}), limit=1)), None)
        if run is not None:
            healing.seen(platform.ledger, begun, run_id=run.run_id, outcome=_outcome(run))
        elif (key := _asset(begun.database, begun.work)) in known:
            requests.append(_request(begun, key))
        else:
            held.append(f"{begun.database}: there is no {begun.work} to begin")
    return requests, held


def _asset(database: str, work: str) -> dg.AssetKey:
    return dg.AssetKey([database, *work.split("/")])


def _outcome(run: dg.DagsterRun) -> Outcome | None:
    if run.is_success:
        return "succeeded"
    return "failed" if run.status in _FAILED else None


def _request(begun: Begun, key: dg.AssetKey) -> dg.RunRequest:
    tags = {"dbplatform/database": begun.database, KEY: begun.key, ALERT: str(begun.alert_id)}
    return dg.RunRequest(run_key=begun.key, asset_selection=[key], tags=tags)
