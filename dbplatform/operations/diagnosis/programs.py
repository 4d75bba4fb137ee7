"""PostgreSQL's programs for backups and their proof: found, new enough for the server, with its extensions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from dbplatform.backups.programs import dump_program, restore_program
from dbplatform.errors import PlatformError
from dbplatform.operations.diagnosis.model import Finding, Patient, error, not_checked, ok
from dbplatform.postgres.connection import Target, connect_plainly
from dbplatform.postgres.programs import Programs, find_programs, programs_in

_MAY_CREATE = "select rolcreatedb or rolsuper from pg_roles where rolname = current_user"
_EXTENSIONS = "select extname from pg_extension where extname <> 'plpgsql' order by 1"


def programs(patient: Patient) -> Iterator[Finding]:
    """The pg_dump that a backup of this server takes, and the pg_restore that reads it: chosen as the backup does."""
    if patient.declared.database.backups is None:
        yield ok("no backups are declared")
        return
    about = {"probe": "pg_dump"}
    try:
        dump = dump_program(find_programs(), server_major=patient.major)
        yield ok(f"pg_dump {dump.version} in {dump.bin_dir}, for a server of version {patient.major}", **about)
        about = {"probe": "pg_restore"}
        restore = restore_program(find_programs(), dump_major=dump.major, server_major=patient.major)
        yield ok(f"pg_restore {restore.version} in {restore.bin_dir}", **about)
    except PlatformError as refused:
        yield error(refused.message, refused.hint, **about)


def proof(patient: Patient) -> Iterator[Finding]:
    """Whether the server on which drills restore is new enough and has the extensions of the database."""
    if patient.declared.database.connection.scratch_url_env is not None:
        yield from _declared_scratch(patient)
        return
    if patient.declared.database.backups is None:
        yield ok("no backups are declared")
        return
    try:
        scratch = _scratch_programs(patient)
    except PlatformError as refused:
        yield error(refused.message, refused.hint)
        return
    if scratch.major < patient.major:
        yield error(
            f"Backups of PostgreSQL {patient.major} cannot be proven on the embedded server, which is of version "
            f"{scratch.version}.",
            f"Install PostgreSQL {patient.major} and name the folder of its programs in DBPLATFORM_PG_BIN.",
        )
        return
    available = extensions_of(scratch)
    needed = [row["extname"] for row in patient.ask(_EXTENSIONS)]
    if available is None:
        yield not_checked(f"the extensions of PostgreSQL {scratch.version} in {scratch.bin_dir} were not found")
    elif missing := [name for name in needed if name not in available]:
        yield error(
            f"Backups cannot be proven on the embedded server, which lacks the extension {', '.join(missing)}.",
            f"Install it for PostgreSQL {scratch.major}, or name programs that have it in DBPLATFORM_PG_BIN.",
        )
    else:
        yield ok(f"drills restore into the embedded PostgreSQL {scratch.version}")


def _declared_scratch(patient: Patient) -> Iterator[Finding]:
    """The server that ``connection.scratch_url_env`` names, asked itself."""
    document = patient.declared.document
    at = {"file": str(document.shown), "line": document.line_of(("attributes", "connection", "scratch_url_env"))}
    try:
        url = patient.declared.scratch_url_from_environment()
        assert url is not None
        with connect_plainly(Target("the scratch server", url), work="doctor") as session:
            major = session.info.server_version // 10000
            row = session.execute(_MAY_CREATE).fetchone()
            available = {name for (name,) in session.execute("select name from pg_available_extensions").fetchall()}
    except PlatformError as refused:
        yield error(f"The scratch server cannot be reached: {refused.message}", refused.hint, **at)
        return
    if major != patient.major:
        yield error(
            f"The scratch server runs PostgreSQL {major}, the database PostgreSQL {patient.major}: no migration can be "
            "rehearsed there.",
            f"Name one of PostgreSQL {patient.major}.",
            **at,
        )
    elif row is None or not row[0]:
        yield error("The user of the scratch server may not create databases.", "alter role ... createdb there.", **at)
    elif missing := [row["extname"] for row in patient.ask(_EXTENSIONS) if row["extname"] not in available]:
        yield error(f"The scratch server lacks the extension {', '.join(missing)}.", "Install it on that server.", **at)
    else:
        yield ok(f"drills and rehearsals work on the declared scratch server, PostgreSQL {major}")


def _scratch_programs(patient: Patient) -> Programs:
    """Those that the embedded server runs with, or would."""
    bin_dir = patient.platform.server.status().bin_dir
    return programs_in(bin_dir) if bin_dir else find_programs()


def extensions_of(programs: Programs) -> set[str] | None:
    """By their control files: beside the programs, or where Debian's packages put them."""
    for share in (
        programs.bin_dir.parent / "share",
        programs.bin_dir.parent / "share" / "postgresql",
        Path("/usr/share/postgresql") / str(programs.major),
    ):
        if (share / "extension").is_dir():
            return {file.stem for file in (share / "extension").glob("*.control")}
    return None
