"""Whether the database can be reached, how far a connection comes, and what lies between here and the server."""

from __future__ import annotations

from collections.abc import Iterator

from psycopg.conninfo import conninfo_to_dict

from dbplatform.declaration.loading import Declared
from dbplatform.errors import CannotConnect, PlatformError, VariableNotSet
from dbplatform.operations.diagnosis.model import Finding, Patient, error, not_checked, ok, warn
from dbplatform.operations.platform import Platform
from dbplatform.postgres import poolers
from dbplatform.postgres.connection import Target
from dbplatform.postgres.refusals import STAGES, Stage
from dbplatform.postgres.transport import VERIFIED, TlsNotVerified


def find_target(platform: Platform, declared: Declared) -> Target | Finding:
    """Where the database is; a finding where it cannot be looked at, because it is not there or cannot be told."""
    try:
        target = platform.existing_target(declared)
        if target is not None:
            return target
        running = platform.server.status().running
    except VariableNotSet as missing:
        return error(missing.message, missing.hint, probe="URL", file=missing.file, line=missing.line)
    except TlsNotVerified as refused:
        return error(refused.message, refused.hint, probe="TLS", file=refused.file, line=refused.line)
    except PlatformError as refused:
        return error(refused.message, refused.hint, probe="embedded server")
    if running:
        return not_checked(
            f"not created: the embedded server has no database {declared.name} yet",
            f"dbplatform run {declared.name} (the first work on it creates it)",
            probe="database",
        )
    return not_checked(
        "server stopped: the database is one of the embedded server, which does not run",
        "dbplatform server start (work on the database starts it, too)",
        probe="embedded server",
    )


def came_through(declared: Declared, target: Target) -> Iterator[Finding]:
    """The stages of a connection that was opened."""
    for stage in STAGES:
        if stage != "TLS":
            yield ok(_passed(stage, declared, target), probe=stage)


def came_as_far_as(declared: Declared, target: Target, refused: CannotConnect) -> Iterator[Finding]:
    """The stages of one that was refused: those before it, the one that failed, and those that nobody can know."""
    ended = STAGES.index(refused.fields["stage"])
    for at, stage in enumerate(STAGES):
        if at == ended:
            yield error(refused.message, refused.hint, probe=stage)
        elif stage != "TLS" and at < ended:
            yield ok(_passed(stage, declared, target), probe=stage)
        elif stage != "TLS":
            yield not_checked(no_session(refused), probe=stage)


def no_session(refused: CannotConnect) -> str:
    """Why what comes after was not looked at."""
    return f"the connection ended before (see {refused.fields['stage']})"


def tls(patient: Patient) -> Iterator[Finding]:
    """Whether the way to the server is encrypted, and whether we know that it is the server."""
    mode = patient.session.info.get_parameters().get("sslmode", "prefer")
    mend = (
        "Put sslmode=verify-full into the URL, and the authority's certificate as sslrootcert=...; "
        "the server needs ssl = on."
    )
    if not patient.session.info.host or patient.session.info.host.startswith("/"):
        yield ok("a socket of this machine: nothing goes over a network")
    elif patient.session.pgconn.ssl_in_use and (
        mode == VERIFIED or (mode == "verify-ca" and not patient.in_production)
    ):
        yield ok(f"encrypted, and the server's certificate is verified (sslmode={mode})")
    elif patient.session.pgconn.ssl_in_use:
        judge = error if patient.in_production else ok
        yield judge(
            f"The connection is encrypted, but the server's certificate is not verified (sslmode={mode}).",
            mend=mend if patient.in_production else None,
        )
    elif patient.in_production:
        yield error("The connection to a database in production is not encrypted.", mend)
    elif patient.session.info.hostaddr.startswith("127.") or patient.session.info.hostaddr == "::1":
        yield ok("not encrypted, and it does not leave this machine")
    else:
        yield warn("The connection is not encrypted and goes over a network.", mend)


def pooler(patient: Patient) -> Iterator[Finding]:
    """Whether a connection pooler such as PgBouncer is in between, and whether it keeps a session together."""
    if poolers.is_direct(patient.session):
        yield ok("none: this is the server itself")
        return
    row = patient.ask_one("select host(inet_server_addr()) as host, inet_server_port() as port")
    direct = f" The pooler finds it at {row['host']}, port {row['port']}." if row["host"] else ""
    mend = f"Name the server itself in the variable of the URL, not its pooler.{direct}"
    between = "A connection pooler (PgBouncer, or one like it) is in between"
    try:
        together = poolers.keeps_together(patient.session, patient.target, work="doctor")
    except TimeoutError:
        yield error(f"{between}, and has no second session to give: the platform uses several at once.", mend)
        return
    if together:
        yield warn(f"{between}, in session mode: each session of the platform keeps one of the pooler's.", mend)
    else:
        yield error(
            f"{between}, in transaction or statement mode: the server's process changes between transactions, so "
            "session advisory locks, LISTEN and settings are lost.",
            mend,
        )


def _passed(stage: Stage, declared: Declared, target: Target) -> str:
    parts = conninfo_to_dict(target.url)
    variable = declared.database.connection.url_env
    match stage:
        case "URL":
            return f"{variable} is set" if variable else "a database of the embedded server"
        case "host":
            return f"{parts.get('host', 'local socket')} is known"
        case "port":
            return f"port {parts.get('port', 5432)} answers"
        case "server":
            return "it takes connections"
        case "login":
            return f"{parts.get('user', 'the default user')} is let in"
        case _:
            return f"{parts.get('dbname') or 'the default database'} exists"
