"""All probes in their order, each kept from hiding another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import psycopg
from psycopg import errors

from dbplatform.declaration.loading import Declared
from dbplatform.errors import CannotConnect, PlatformError
from dbplatform.operations.diagnosis import (
    connecting,
    pools,
    programs,
    readers,
    rights,
    server,
    settings,
    surroundings,
)
from dbplatform.operations.diagnosis.model import Finding, Patient, Probe, error, not_checked
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import connect_plainly

#: What is asked of a database that answers.
PROBES: dict[str, Probe] = {
    "TLS": connecting.tls,
    "pooler": connecting.pooler,
    "version": server.version,
    "replica": server.replica,
    "clock": server.clock,
    "time zone": server.time_zone,
    "connections": server.connections,
    "pools": pools.pools,
    "time limits": server.time_limits,
    "extensions": server.extensions,
    "schemas": rights.schemas,
    "tables": rights.tables,
    "monitoring": rights.monitoring,
    "dump": rights.dump,
    "restore": rights.databases,
    "programs": programs.programs,
    "proof": programs.proof,
    "room for backup": surroundings.room_for_backup,
    "settings": settings.durability,
    "synchronous standbys": settings.synchronous_standbys,
    "WAL archive": settings.wal_archive,
}

#: What is asked of a declaration, whether its database answers or not.
DECLARED: dict[str, Callable[[Platform, Declared], Iterable[Finding]]] = {
    "notify": surroundings.channels,
    "destinations": surroundings.destinations,
    "readers of backups": readers.readers,
}

SURROUNDINGS: dict[str, Callable[[Platform], Iterable[Finding]]] = {
    "Python": surroundings.python,
    "declarations": surroundings.declarations,
    "home": surroundings.home,
    "machines": surroundings.spread,
    "server programs": surroundings.server_programs,
    "embedded server": surroundings.embedded_server,
    "ledger": surroundings.ledger,
}

#: These need no transaction, or look at what it, or the limits in it, would hide.
PLAIN = (connecting.tls, connecting.pooler, server.time_limits)

#: A probe is given this long for each of its questions; a lock of somebody else, a fifth of it.
_LIMITS = "select set_config('statement_timeout', '10s', true), set_config('lock_timeout', '2s', true)"


def now_here() -> datetime:
    """This machine's clock."""
    return datetime.now(UTC)


def examine(
    platform: Platform, name: str | None = None, *, now: Callable[[], datetime] = now_here
) -> tuple[Finding, ...]:
    """The findings of one declared database; of none named, the surroundings' and those of all databases.

    Only reads. Raises what ``Declarations.get`` does for a database that is not declared, or wrongly.
    """
    if name is not None:
        return tuple(_of_database(platform, platform.declarations.get(name), now))
    found: list[Finding] = []
    for probe, look in SURROUNDINGS.items():
        found += _safely(probe, partial(look, platform))
    for declared in platform.declarations.databases:
        found += _of_database(platform, declared, now)
    return tuple(found)


def _of_database(platform: Platform, declared: Declared, now: Callable[[], datetime]) -> Iterator[Finding]:
    for finding in _looked_at(platform, declared, now):
        yield replace(finding, database=declared.name)


def _looked_at(platform: Platform, declared: Declared, now: Callable[[], datetime]) -> Iterator[Finding]:
    target = connecting.find_target(platform, declared)
    if isinstance(target, Finding):
        yield target
        yield from _not_asked(f"there is nothing to connect to (see {target.probe})", known=target.probe)
    else:
        try:
            with connect_plainly(target, work="doctor") as session:
                yield from connecting.came_through(declared, target)
                patient = Patient(platform=platform, declared=declared, target=target, session=session, now=now)
                yield from _asked(patient)
        except CannotConnect as refused:
            yield from connecting.came_as_far_as(declared, target, refused)
            yield from _not_asked(connecting.no_session(refused), known=refused.fields["stage"])
    for probe, look in DECLARED.items():
        yield from _safely(probe, partial(look, platform, declared))


def _asked(patient: Patient) -> Iterator[Finding]:
    """Every probe in a read-only transaction of its own; once the session is lost, the others say so."""
    lost: str | None = None
    for name, probe in PROBES.items():
        if lost is not None:
            yield not_checked(f"the session was lost (see {lost})", probe=name)
            continue
        yield from _safely(name, partial(_in_transaction, patient, probe))
        if patient.session.closed:
            lost = name
            yield error("The session was lost meanwhile.", "See the server's log, then look again.", probe="session")


def _in_transaction(patient: Patient, probe: Probe) -> list[Finding]:
    if probe in PLAIN:
        return list(probe(patient))
    with patient.session.transaction():
        patient.session.execute("set transaction read only")
        patient.session.execute(_LIMITS)
        return list(probe(patient))


def _safely(name: str, look: Callable[[], Iterable[Finding]]) -> list[Finding]:
    try:
        found = list(look())
    except errors.InsufficientPrivilege as refused:
        found = [not_checked(_first_line(refused), "Grant it to the user in the URL, or look as another.")]
    except (psycopg.Error, PlatformError, OSError) as failed:
        found = [not_checked(_first_line(failed))]
    return [replace(finding, probe=finding.probe or name) for finding in found]


def _not_asked(reason: str, *, known: str | None = None) -> Iterator[Finding]:
    for name in PROBES:
        if name != known:
            yield not_checked(reason, probe=name)


def _first_line(failed: Exception) -> str:
    return (str(failed).strip() or type(failed).__name__).splitlines()[0]
