"""Signs of life: whoever watches says so in the ledger, and another process tells when that stops.

The sensor beats at the end of each tick, the status service while it runs; each reads the other's. So a daemon that was
killed, a sensor that fails, a queue that stands still and a status service that is gone are alerts of the platform
itself. All times are the ledger server's, so the clocks of two machines do not matter.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert

from dbplatform.alerting.states import Observation
from dbplatform.ledger.ledger import Ledger
from dbplatform.ledger.monitoring import Heartbeat

#: What its alerts are listed under: no database, which is why no declaration may take the name.
PLATFORM: Final = "dbplatform"
#: The keys of its alerts.
HEARTBEAT: Final = "heartbeat:"
WATCH, QUEUE, SERVICE = "watch", "run_queue", "status_service"
#: The sensor ticks once a minute: whoever is told within two minutes may wait so long.
WITHIN = timedelta(seconds=105)

_WORDS: Final = {
    WATCH: (
        "the watch over the databases has stopped: Dagster's daemon does not run, or the sensor dbplatform_watch fails",
        "Nobody sees now what happens to the databases. Start the daemon (dbplatform dev, or dagster-daemon run). "
        "In the Dagster UI, Deployment > Daemons and the ticks of the sensor say why it stopped.",
    ),
    QUEUE: (
        "runs wait in Dagster's queue, and no run of their database goes on",
        "Scheduled work does not happen. dbplatform runs list shows what holds the queue, dbplatform runs free ID "
        "frees the place of a dead run.",
    ),
    SERVICE: (
        "the status service has stopped",
        "Reports cannot be read, and nobody would tell of a stopped daemon. Start it: dbplatform serve.",
    ),
}


def beat(ledger: Ledger, name: str, *, within: timedelta = WITHIN) -> None:
    """A sign of life; the next one is due ``within`` this time. One short transaction in the ledger."""
    values = {"at": func.now(), "within_s": within.total_seconds(), "words": _WORDS[name][0]}
    statement = insert(Heartbeat).values(name=name, **values)
    with ledger.session() as session:
        session.execute(statement.on_conflict_do_update(index_elements=[Heartbeat.name], set_=values))


def miss(ledger: Ledger, name: str) -> None:
    """Its next sign will not come, as somebody saw: it is overdue at once."""
    statement = update(Heartbeat).where(Heartbeat.name == name)
    with ledger.session() as session:
        session.execute(statement.values(at=func.now() - func.make_interval(0, 0, 0, 0, 0, 0, Heartbeat.within_s + 1)))


def sign_off(ledger: Ledger, *names: str) -> None:
    """They end as somebody wanted them to: nobody waits for their next sign."""
    with ledger.session() as session:
        session.execute(delete(Heartbeat).where(Heartbeat.name.in_(names)))


def observations(ledger: Ledger, *names: str) -> list[Observation]:
    """Whether the next sign of each is overdue; nobody waits for one that never gave any, or signed off."""
    overdue = func.now() > Heartbeat.at + func.make_interval(0, 0, 0, 0, 0, 0, Heartbeat.within_s)
    statement = select(Heartbeat.name, Heartbeat.at).where(Heartbeat.name.in_(names), overdue)
    with ledger.session() as session:
        late = dict(session.execute(statement).all())
    return [
        Observation(
            key=HEARTBEAT + name,
            metric=name,
            severity="critical" if name in late else None,
            cause=f"{_WORDS[name][0]} (its last sign: {late[name]:%Y-%m-%d %H:%M:%S %Z})"
            if name in late
            else f"the {name.replace('_', ' ')} gives signs again, or is not expected to",
            advice=_WORDS[name][1],
        )
        for name in names
    ]
