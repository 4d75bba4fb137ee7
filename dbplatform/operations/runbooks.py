"""What to do about each alert: one short page per metric and source, linked in every message.

Read by ``dbplatform alerts runbook``, the status service and the docs. A metric's page is made from what is said of it
where it is measured; those of the other sources stand here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dbplatform.addresses import service_address
from dbplatform.errors import UsageError
from dbplatform.monitoring.kind import Kind
from dbplatform.monitoring.metrics import KINDS
from dbplatform.operations import heartbeats
from dbplatform.operations.observations import (
    ASSET_CHECK,
    CHECK,
    REACHABLE,
    RUN,
    SCHEDULE,
    STUCK,
    UNMEASURED,
    UNREVIEWED,
    WAL_ARCHIVE,
    WATCH_OF,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Runbook:
    """One page: what the alert means, what to do, the usual limits, and where to read on."""

    name: str
    meaning: str
    advice: str
    limits: str = ""
    document: str = ""

    def as_json(self) -> dict[str, Any]:
        """The document of ``alerts runbook --json``."""
        return {
            "name": self.name,
            "meaning": self.meaning,
            "advice": self.advice,
            "limits": self.limits,
            "document": self.document,
        }


class NoRunbook(UsageError):
    """There is no runbook {name}."""


_OTHERS: Final = (
    Runbook(
        name=REACHABLE,
        meaning="The database could not be reached, or not be measured at all, for a minute. One of whose limits some "
        "cannot be measured is reached: that is the alert unmeasured.",
        advice="dbplatform doctor DATABASE names the cause: the server is down, the address or the password is "
        "wrong, a right is missing, no connection is free. Applications most likely see the same.",
    ),
    Runbook(
        name=UNMEASURED,
        meaning="Limits that are declared, or were measured before, could not be measured for 15 minutes: a breach of "
        "one of them would be told to nobody. A database in which too little happens to judge is no case of it.",
        advice="The message has each with its reason. A right that was taken away: dbplatform metrics DATABASE shows "
        "the GRANT. A pooler that is silent, a question that ran into its time limit, an extension that is gone: see to"
        " it. A replica that is gone: see its log; drop the slot of one that will not come back.",
    ),
    Runbook(
        name=UNREVIEWED,
        meaning="A failing data-quality report has waited longer for a review than reports.review_within says.",
        advice="dbplatform report list DATABASE --unreviewed shows which; read it, see that its findings have an "
        "owner, and say so: dbplatform report review ID --comment TEXT, or the link on the report. --and-earlier "
        "answers for the older ones, too.",
    ),
    Runbook(
        name=WAL_ARCHIVE,
        meaning="WAL that the server has put down does not reach its archive, for five minutes.",
        advice="Until it does, a lost disk loses what was written since, and the spool fills the server's disk. "
        "dbplatform wal status DATABASE shows what waits and why; look at the archive's disk, bucket and "
        "credentials.",
    ),
    Runbook(
        name="check",
        meaning="A data-quality check failed when it was asked last, or could not run.",
        advice="The report of the run shows the failing rows, since when, and what was changed before: dbplatform "
        "report show. Mend the data or what writes it; accept it for a time with accepted_until and a reason;"
        " or change the check.",
    ),
    Runbook(
        name="run",
        meaning="The last run of a job failed: what it should have done is not done.",
        advice="The message names the step, the reason and the next step; the run's log has the rest. Every step can"
        " be run again: dbplatform run DATABASE --job JOB, or Re-execute in the Dagster UI.",
    ),
    Runbook(
        name="stuck",
        meaning="A run does not end. Critical: its process is gone, and runs.free_dead is false, so that it keeps its "
        "place in the pool and the next runs wait. Warning: it goes on for longer than runs.tell_after.",
        advice="dbplatform runs list shows whether its process lives and which pools it holds. One that is dead: "
        "dbplatform runs free ID. One that lives is left alone unless you end it: dbplatform connections DATABASE shows"
        " what it waits for, dbplatform runs cancel ID ends it; runs.end_after does so by itself.",
    ),
    Runbook(
        name="asset_check",
        meaning="An asset check failed when it was evaluated last, though the run may be green: drift, lint, undo, "
        "partitions that run out, structure, security, benchmarks that are worse.",
        advice="The check's page in the Dagster UI has the evidence. The commands say more: dbplatform migrate "
        "drift, migrate lint, migrate test, partition plan, health --structure, health --security, bench compare.",
    ),
    Runbook(
        name="schedule",
        meaning="A schedule or a sensor fails at its tick: it starts nothing, and no run is there to fail.",
        advice="Its ticks in the Dagster UI (Automation) have the error. A declaration that cannot be loaded is the "
        "most common cause: dbplatform list says so.",
    ),
    Runbook(
        name=heartbeats.WATCH,
        meaning="Nobody looks at the databases: the Dagster daemon has stopped or hangs, or the sensor "
        "dbplatform_watch fails at each tick.",
        advice="Start the daemon (dbplatform dev, or dagster-daemon run). If it runs: Dagster UI, Deployment > "
        "Daemons, then the ticks of dbplatform_watch. Until then no other alert can come.",
    ),
    Runbook(
        name="look",
        meaning="For three minutes no look at a database has ended well: it failed, or hung. The others are watched.",
        advice="Until it is mended no alert of that database can come, nor end. The message has the error; the log of "
        "the Dagster daemon has the rest. dbplatform doctor DATABASE tells whether its server hangs; a look that hangs "
        "ends with the daemon: start it anew.",
    ),
    Runbook(
        name=heartbeats.QUEUE,
        meaning="A run has waited in Dagster's queue for more than 15 minutes while no other one of its database goes"
        " on.",
        advice="dbplatform runs list shows what holds the queue; dbplatform runs free ID frees the place of a dead "
        "run; see whether the run coordinator is healthy in Deployment > Daemons.",
    ),
    Runbook(
        name=heartbeats.SERVICE,
        meaning="The status service ended without a word: it was killed, or its machine is gone.",
        advice="Start it: dbplatform serve. Without it nobody would tell of a stopped daemon.",
    ),
    Runbook(
        name="ledger",
        meaning="The ledger does not answer: nothing is watched, recorded or run.",
        advice="Start its server: dbplatform server start, or the one that DBPLATFORM_LEDGER_URL names; dbplatform "
        "doctor says what is wrong with it. Alerts that waited in it are sent when it is back.",
    ),
)
#: The page of the alerts whose key begins so.
_BY_PREFIX: Final = {
    CHECK: "check", RUN: "run", STUCK: "stuck", ASSET_CHECK: "asset_check", SCHEDULE: "schedule", WATCH_OF: "look",
}  # fmt: skip


def runbooks() -> Mapping[str, Runbook]:
    """Every page by its name: the metrics in the order in which they are measured, then the other sources."""
    pages = [
        Runbook(
            name=kind.name,
            meaning=kind.meaning,
            advice=kind.advice,
            limits=_limits(kind),
            document=kind.document,
        )
        for kind in KINDS.values()
    ]
    return {page.name: page for page in (*pages, *_OTHERS)}


def runbook(name: str) -> Runbook:
    """The page of a metric, or of a whole alert such as ``check:public.item.not_null_name``. Raises ``NoRunbook``."""
    found = runbooks().get(_page_of(name))
    if found is None:
        raise NoRunbook(name=repr(name), hint="See the names: dbplatform alerts runbook")
    return found


def address(key: str) -> str:
    """Where the status service shows the page of an alert with this key."""
    return f"{service_address()}/runbooks#{_page_of(key)}"


def _limits(kind: Kind) -> str:
    levels = (("warning", kind.warn), ("critical", kind.critical))
    return ", ".join(f"{word} {limit}" for word, limit in levels if limit)


def _page_of(key: str) -> str:
    name = key.removeprefix(heartbeats.HEARTBEAT)
    return next((page for prefix, page in _BY_PREFIX.items() if key.startswith(prefix)), name)
