"""Settings of the server that decide whether committed data survives, commits return, and WAL can be archived."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dbplatform.operations.diagnosis.model import Finding, Patient, Status, error, not_checked, ok, warn


@dataclass(frozen=True, slots=True)
class Danger:
    """A value of a setting that hurts: what it means, how bad it is in production and elsewhere, what sets it right."""

    setting: str
    value: str
    cause: str
    in_production: Status
    elsewhere: Status
    mend: str


_RELOAD = "SELECT pg_reload_conf();"
_DANGERS = (
    Danger(
        "fsync",
        "off",
        "A crash of the machine may destroy the whole cluster",
        "error",
        "warn",
        f"ALTER SYSTEM SET fsync = on; {_RELOAD}",
    ),
    Danger(
        "full_page_writes",
        "off",
        "A crash of the machine may leave torn pages that WAL cannot repair",
        "error",
        "warn",
        f"ALTER SYSTEM SET full_page_writes = on; {_RELOAD}",
    ),
    Danger(
        "synchronous_commit",
        "off",
        "A crash loses transactions that were reported as committed",
        "warn",
        "ok",
        f"ALTER SYSTEM SET synchronous_commit = on; {_RELOAD}",
    ),
    Danger(
        "data_checksums",
        "off",
        "Damage on the disk is not noticed when it is read",
        "warn",
        "ok",
        "Stop the server, then: pg_checksums --enable --pgdata=...",
    ),
    Danger(
        "autovacuum",
        "off",
        "Dead rows and old transaction ids pile up",
        "error",
        "warn",
        f"ALTER SYSTEM SET autovacuum = on; {_RELOAD}",
    ),
    Danger(
        "track_counts",
        "off",
        "Autovacuum does not work and metrics are missing",
        "error",
        "warn",
        f"ALTER SYSTEM SET track_counts = on; {_RELOAD}",
    ),
    Danger(
        "wal_level",
        "minimal",
        "There can be neither a physical backup nor a replica",
        "warn",
        "ok",
        "ALTER SYSTEM SET wal_level = replica; then restart the server.",
    ),
)

_SETTINGS = "select name, setting from pg_settings where name = any(%s)"
_ARCHIVER = """
    select last_failed_time is not null
             and (last_archived_time is null or last_failed_time > last_archived_time) as failing,
           last_failed_wal, last_failed_time, failed_count, archived_count, last_archived_time
    from pg_stat_archiver
"""
_STANDBYS = r"""
    select setting as names, pg_has_role('pg_read_all_stats', 'usage') as sees,
           coalesce((regexp_match(setting, '^\s*(?:first|any)?\s*(\d+)\s*\(', 'i'))[1]::int, 1) as needed,
           (select count(*) from pg_stat_replication where sync_state in ('sync', 'quorum')) as answering
    from pg_settings where name = 'synchronous_standby_names'
"""


def durability(patient: Patient) -> Iterator[Finding]:
    """The settings that keep committed data, and those that keep the server fit."""
    found = _settings(patient, *(danger.setting for danger in _DANGERS))
    for danger in _DANGERS:
        value = found.get(danger.setting)
        status = danger.in_production if patient.in_production else danger.elsewhere
        if value is None:
            yield not_checked("the server does not tell it", probe=danger.setting)
        elif value != danger.value or status == "ok":
            yield ok(value, probe=danger.setting)
        else:
            judge = error if status == "error" else warn
            yield judge(f"{danger.cause}: {danger.setting} is {value}.", danger.mend, probe=danger.setting)


def wal_archive(patient: Patient) -> Iterator[Finding]:
    """Whether WAL is archived, and whether that works now."""
    found = _settings(patient, "archive_mode", "archive_command", "archive_library")
    if found["archive_mode"] == "off":
        if patient.in_production:
            yield warn(
                "WAL is not archived (archive_mode is off), so a restore goes back to the last backup and not to a "
                "moment.",
                "ALTER SYSTEM SET archive_mode = on; and archive_command; then restart the server.",
            )
        else:
            yield ok("off: restores go back to the last backup")
        return
    row = patient.ask_one(_ARCHIVER)
    if row["failing"]:
        yield error(
            f"Archiving WAL fails: {row['last_failed_wal']} failed at {row['last_failed_time']:%Y-%m-%d %H:%M:%S %Z}; "
            "the server keeps all WAL until it succeeds, and fills its disk.",
            "Run archive_command by hand for that file and look into the server's log; what fails now is told there.",
        )
    elif found["archive_command"]:
        yield ok(f"on, {row['archived_count']} files archived")
    elif patient.major >= 15 and "archive_library" not in found:
        yield not_checked(f"{patient.user} may not read archive_library", patient.sql("GRANT pg_monitor TO {user};"))
    elif not found.get("archive_library"):
        yield warn(
            "archive_mode is on, but there is neither archive_command nor archive_library: WAL is kept and "
            "never archived.",
            f"ALTER SYSTEM SET archive_command = '...'; {_RELOAD}",
        )
    else:
        yield ok(f"on, {row['archived_count']} files archived")


def synchronous_standbys(patient: Patient) -> Iterator[Finding]:
    """Whether those answer that each commit waits for."""
    row = patient.ask_one(_STANDBYS)
    if not row["names"]:
        yield ok("none: a commit waits for no other server")
    elif not row["sees"]:
        yield not_checked(f"{patient.user} may not see replicas", patient.sql("GRANT pg_monitor TO {user};"))
    elif row["answering"] < row["needed"]:
        yield error(
            f"Every commit waits, for ever and with its locks: {row['answering']} of {row['needed']} synchronous "
            f"standbys answer (synchronous_standby_names: {row['names']}).",
            f"Start the standby (see pg_stat_replication), or: ALTER SYSTEM RESET synchronous_standby_names; {_RELOAD}",
        )
    else:
        yield ok(f"{row['answering']} answer of {row['names']}")


def _settings(patient: Patient, *names: str) -> dict[str, str]:
    return {row["name"]: row["setting"] for row in patient.ask(_SETTINGS, list(names))}
