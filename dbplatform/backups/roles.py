"""The roles of the server beside a dump, by pg_dumpall: a database can be restored where they are missing.

The hashes of passwords go only into a backup that is encrypted. Nothing of this is executed by a restore: the file is
for a person, who decides which roles another server gets.
"""

from __future__ import annotations

from pathlib import Path

from dbplatform.postgres.client_programs import ProgramFailed, login, run
from dbplatform.postgres.connection import AnyConnection, Target
from dbplatform.postgres.programs import Programs

_MAY_READ_PASSWORDS = "select has_table_privilege('pg_authid', 'select')"


def dump_globals(
    program: Programs, target: Target, connection: AnyConnection, file: Path, *, passwords: bool
) -> tuple[str, ...]:
    """Write roles and tablespaces as SQL into ``file``; sentences that say what is missing of it.

    ``passwords``: with their hashes, where the user may read them. What cannot be had fails no backup.
    """
    missing = []
    row = connection.execute(_MAY_READ_PASSWORDS).fetchone()
    readable = row is not None and bool(row[0])
    if passwords and not readable:
        missing.append("globals.sql holds no passwords: the user may not read pg_authid")
    if not passwords:
        missing.append("globals.sql holds no passwords: they are kept in encrypted backups alone (encrypt_to)")
    access = login(target, work="dumps roles", server_of=connection)
    command: list[str | Path] = [
        program.bin_dir / "pg_dumpall",
        "--globals-only",
        "--no-password",
        f"--file={file}",
        f"--dbname={access.dbname}",
        f"--database={connection.info.dbname}",
    ]
    if not (passwords and readable):
        command.append("--no-role-passwords")
    try:
        run(command, login=access)
    except (ProgramFailed, FileNotFoundError) as error:
        file.unlink(missing_ok=True)
        return (f"there is no globals.sql with the roles: {error}",)
    file.chmod(0o600)
    return tuple(missing)
