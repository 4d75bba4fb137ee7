"""What the server is: version, replica, clock, time zone, room for connections, time limits, extensions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from psycopg import sql

from dbplatform.operations.diagnosis.model import Finding, Patient, error, not_checked, ok, warn

OLDEST, NEWEST = 14, 18
_CLOCK_WARN_S, _CLOCK_ERROR_S = 2.0, 60.0
#: The sessions of a backup beside those of pg_dump, one of which leads the others.
_SESSIONS_OF_BACKUP = 3
_SESSIONS = 2

_PLACES_IN_TIME = """
    select c.oid::regclass::text || '.' || a.attname as place, format_type(a.atttypid, null) as type
    from unnest(%s::text[], %s::text[], %s::text[]) as declared(schema, relation, "column")
    join pg_namespace n on n.nspname = declared.schema
    join pg_class c on c.relnamespace = n.oid and c.relname = declared.relation
    join pg_attribute a on a.attrelid = c.oid and a.attname = declared."column"
    where a.atttypid in ('timestamp'::regtype, 'date'::regtype)
    order by 1
"""

_ROOM = """
    select current_setting('max_connections')::int
             - current_setting('superuser_reserved_connections')::int
             - coalesce(current_setting('reserved_connections', true)::int, 0)
             - (select sum(numbackends) from pg_stat_database)::int as of_server,
           (select nullif(rolconnlimit, -1) - (select count(*) from pg_stat_activity where usename = current_user)
            from pg_roles where rolname = current_user)::int as of_role,
           (select nullif(datconnlimit, -1) - (select numbackends from pg_stat_database s where s.datid = d.oid)
            from pg_database d where datname = current_database())::int as of_database,
           current_setting('max_connections')::int as max_connections
"""

_LIMITS = """
    select name, setting || coalesce(unit, '') as value, source from pg_settings
    where name = any(%s)
      and setting <> '0'
    order by name
"""

#: What each limit ends. Each wait for a lock has a limit of the platform's own.
_ENDED = {
    "statement_timeout": "each statement of a check, a migration or a seed that takes longer",
    "transaction_timeout": "each migration or seed that takes longer",
    "idle_in_transaction_session_timeout": "a session that pauses longer inside a transaction",
    "idle_session_timeout": "a session that pauses longer, as one does that keeps a lock while others work",
}

_RESET = {
    "user": "ALTER ROLE {user} RESET {name};",
    "database": "ALTER DATABASE {database} RESET {name};",
    "database user": "ALTER ROLE {user} IN DATABASE {database} RESET {name};",
}
_OVERRIDE = "ALTER ROLE {user} SET {name} = 0;"

_WRITABLE = """
    select pg_is_in_recovery() as standby, setting as read_only, source
    from pg_settings where name = 'default_transaction_read_only'
"""

_EXTENSIONS = """
    select (select coalesce(jsonb_object_agg(extname, extversion), '{}')
            from pg_extension where extname <> 'plpgsql') as installed,
           array(select name::text from pg_available_extensions where installed_version is null
                 and name in ('pg_stat_statements', 'pgstattuple', 'amcheck') order by 1) as available,
           (select setting like '%pg_stat_statements%' from pg_settings
            where name = 'shared_preload_libraries') as preloaded
"""


def version(patient: Patient) -> Iterator[Finding]:
    """Whether the server is one that the platform knows."""
    shown = patient.session.info.parameter_status("server_version") or str(patient.major)
    if patient.major < OLDEST:
        yield error(
            f"The server runs PostgreSQL {shown}; supported are {OLDEST} to {NEWEST}.",
            f"Upgrade the server to PostgreSQL {OLDEST} or newer.",
        )
    elif patient.major > NEWEST:
        yield warn(
            f"The server runs PostgreSQL {shown}, newer than the platform was tried with ({OLDEST} to {NEWEST}).",
            "Look for a newer dbplatform.",
        )
    else:
        yield ok(f"PostgreSQL {shown}")


def replica(patient: Patient) -> Iterator[Finding]:
    """Whether the database can be written to."""
    row = patient.ask_one(_WRITABLE)
    if row["standby"]:
        yield error(
            "The server is a replica (it is in recovery), so nothing can be written.",
            "Name the primary in the variable of the URL; with several hosts in it, add target_session_attrs=primary.",
        )
    elif row["read_only"] == "on":
        yield error(
            f"Sessions of {patient.user} are read-only: default_transaction_read_only is on (set by: {row['source']}).",
            _mended(patient, "default_transaction_read_only", row["source"]),
        )
    else:
        yield ok("a primary, which can be written to")


def clock(patient: Patient) -> Iterator[Finding]:
    """The difference between the server's clock and ours, less what the question itself took."""
    before = patient.now()
    row = patient.ask_one("select clock_timestamp() as now")
    after = patient.now()
    theirs: datetime = row["now"]
    ahead = (theirs - after).total_seconds()
    behind = (before - theirs).total_seconds()
    apart = max(ahead, behind, 0.0)
    words = f"The server's clock is {apart:.1f} s {'ahead of' if ahead > behind else 'behind'} this machine's"
    mend = (
        "Let both machines set their clocks by NTP: chronyc tracking, or timedatectl status, tells which one is wrong."
    )
    if apart > _CLOCK_ERROR_S:
        yield error(f"{words}: what is old enough to be archived or removed is judged wrongly.", mend)
    elif apart > _CLOCK_WARN_S:
        yield warn(f"{words}.", mend)
    else:
        yield ok(f"less than {_CLOCK_WARN_S:.0f} s apart")


def time_zone(patient: Patient) -> Iterator[Finding]:
    """Whether local times are meant where the platform reckons in UTC: in columns of declared tables without zone."""
    row = patient.ask_one(
        "select current_setting('TimeZone') as zone, current_setting('log_timezone') as log,"
        " extract(timezone from make_timestamptz(2025, 1, 1, 0, 0, 0)) = 0"
        " and extract(timezone from make_timestamptz(2025, 7, 1, 0, 0, 0)) = 0 as is_utc"
    )
    declared = patient.declared.database
    by_time = [(p.table, p.column) for p in declared.partitioned_tables] + [
        (a.table, a.column) for a in declared.archives if a.column is not None
    ]
    columns = patient.ask(
        _PLACES_IN_TIME,
        [table.schema for table, _ in by_time],
        [table.name for table, _ in by_time],
        [column for _, column in by_time],
    )
    if columns and not row["is_utc"]:
        places = ", ".join(f"{column['place']} ({column['type']})" for column in columns)
        yield warn(
            f"Sessions have the time zone {row['zone']}, while the platform reckons in UTC: what they write to "
            f"{places} by now() is local time.",
            "Make the column a timestamptz, or write UTC: "
            + patient.sql("ALTER DATABASE {database} SET timezone = 'UTC';"),
        )
    else:
        yield ok(f"sessions {row['zone']}, server's log {row['log']}; the platform's own sessions use UTC")


def connections(patient: Patient) -> Iterator[Finding]:
    """Whether there is room for the sessions that the platform opens at once."""
    policy = patient.declared.database.backups
    needed = _SESSIONS if policy is None else _SESSIONS_OF_BACKUP + 1 + policy.logical.jobs
    row = patient.ask_one(_ROOM)
    scarce = [
        (limit, free)
        for limit, free in (
            ("max_connections of the server", row["of_server"]),
            (f"the connection limit of {patient.user}", row["of_role"]),
            (f"the connection limit of {patient.database}", row["of_database"]),
        )
        if free is not None and free < needed
    ]
    for limit, free in scarce:
        yield warn(
            f"{limit[0].upper()}{limit[1:]} leaves {max(free, 0)} connections; "
            f"the platform uses up to {needed} at once.",
            "Raise the limit, or end sessions that are not needed"
            + (": fewer jobs in backups.logical help, too." if policy and policy.logical.jobs > 1 else "."),
        )
    if not scarce:
        yield ok(f"{row['of_server']} of {row['max_connections']} free; the platform uses up to {needed} at once")


def time_limits(patient: Patient) -> Iterator[Finding]:
    """Limits that end work: those of the role, the database or the server. Backups lift them, other work does not."""
    limits = patient.ask(_LIMITS, list(_ENDED))
    for limit in limits:
        name, source = limit["name"], limit["source"]
        yield warn(
            f"Sessions of {patient.user} have {name} = {limit['value']} (set by: {source}), which ends {_ENDED[name]}.",
            _mended(patient, name, source),
            probe=name,
        )
    if not limits:
        yield ok("no time limit ends the platform's work")


def extensions(patient: Patient) -> Iterator[Finding]:
    """What is installed, what could be, and whether the costs of statements are counted."""
    row = patient.ask_one(_EXTENSIONS)
    installed = [f"{name} {version}" for name, version in row["installed"].items()]
    could = f"; could be: {', '.join(row['available'])}" if row["available"] else ""
    yield ok(f"installed: {', '.join(installed) or 'none'}{could}")
    served = patient.declared.database.connection.environment in ("staging", "production")
    if "pg_stat_statements" in row["installed"] or not served:
        return
    if row["preloaded"] is None:
        yield not_checked(
            f"{patient.user} may not read shared_preload_libraries",
            patient.sql("GRANT pg_monitor TO {user};"),
            probe="pg_stat_statements",
        )
    else:
        preload = "" if row["preloaded"] else "Add pg_stat_statements to shared_preload_libraries and restart; then: "
        yield warn(
            "pg_stat_statements is not installed, so nobody can tell which statements cost most.",
            f"{preload}CREATE EXTENSION pg_stat_statements;",
            probe="pg_stat_statements",
        )


def _mended(patient: Patient, setting: str, source: str) -> str:
    """How to undo a setting where it was made; one of the whole server is overridden for the user alone."""
    if source == "client":
        return f"Take {setting} out of the URL, or out of PGOPTIONS."
    return patient.sql(_RESET.get(source, _OVERRIDE), name=sql.SQL(setting))
