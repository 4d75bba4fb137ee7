"""One backup into one empty database: what a restore and a drill share."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dbplatform import progress
from dbplatform.backups.catalogue import Backup
from dbplatform.backups.errors import RestoreFailed, ServerLacks, ServerTooOld
from dbplatform.backups.files import require_room
from dbplatform.backups.manifest import Manifest
from dbplatform.backups.programs import restore_program, stops_at_once, unknown_timeout
from dbplatform.backups.scratch import Scratch
from dbplatform.postgres.client_programs import ProgramFailed, login, own_environment, run, silent_end
from dbplatform.postgres.connection import AnyConnection, Target
from dbplatform.postgres.programs import Programs

# Entries of the table of contents that need a role, which a scratch server does not have, and hold no rows. A user
# mapping is the way into another database besides: with it, a scratch database could change real rows there.
_POLICY = re.compile(r"\d+; \d+ \d+ POLICY ")
_USER_MAPPING = re.compile(r"\d+; \d+ \d+ USER MAPPING ")
_LOOK_AT_SIZE_S = 1.0
_HAS_TABLESPACES = "select exists (select from pg_tablespace where spcname not in ('pg_default', 'pg_global'))"
_SIZE = "select pg_database_size(oid) from pg_database where datname = %s"


def check_server(
    connection: AnyConnection, server: Target, backup: Backup, manifest: Manifest, *, roles: bool, room: Path | None
) -> None:
    """Raise what would stop the restore later: an older server, missing extensions or roles, too little room.

    ``room`` is a folder on the file system of the server's data, where that is known; nothing is read of the server's
    disk otherwise.
    """
    major = connection.info.server_version // 10000
    if major < manifest.source.server_major:
        raise ServerTooOld(
            id=backup.id,
            needed=manifest.source.server_version,
            server=server.place,
            actual=connection.info.parameter_status("server_version"),
            hint=f"Restore to PostgreSQL {manifest.source.server_major} or newer.",
        )
    available = {name for (name,) in connection.execute("select name from pg_available_extensions").fetchall()}
    if missing := sorted(set(manifest.source.extensions) - available):
        raise ServerLacks(
            id=backup.id,
            what=f"the extension {', '.join(missing)}",
            server=server.place,
            hint="Install it on that server, or restore to another.",
        )
    known = {name for (name,) in connection.execute("select rolname from pg_roles").fetchall()}
    if roles and (missing := sorted({*manifest.source.roles, manifest.source.owner} - known)):
        raise ServerLacks(
            id=backup.id,
            what=f"the role {', '.join(missing)}",
            server=server.place,
            hint="Create it there, or restore without owners and grants.",
        )
    if room is not None:
        require_room(room, manifest.source.database_bytes, work=f"the restored {backup.database}")


def load(
    backup: Backup,
    manifest: Manifest,
    dump: Path,
    scratch: Scratch,
    *,
    programs: Programs,
    jobs: int,
    roles: bool,
    policies: bool = False,
    options: Sequence[str] = (),
    keep: Callable[[str], bool] | None = None,
    task: str,
) -> None:
    """Run pg_restore of the folder ``dump`` into the empty database, without subscriptions.

    Of its table of contents goes what ``keep`` says, by the lines of ``pg_restore --list``.

    Without ``roles``, what belongs to roles (owners, grants, row security policies, user mappings) is left out;
    ``policies`` keeps the policies even then, for a server that has the roles.
    Reports ``task`` in bytes of the growing database. Raises ``RestoreFailed`` with pg_restore's own words.
    """
    major = scratch.maintenance.info.server_version // 10000
    program = restore_program(programs, dump_major=manifest.program_major, server_major=major)
    access = login(scratch.target, work=f"loads {scratch.token}", server_of=scratch.maintenance)
    command: list[str | Path] = [
        program.path("pg_restore"),
        f"--dbname={access.dbname}",
        f"--jobs={jobs}",
        "--no-subscriptions",
        "--no-password",
        *options,
    ]
    if stops_at_once(program, server_major=major):
        command.append("--exit-on-error")
    if not roles:
        command += ["--no-owner", "--no-privileges"]
    command += tablespace_options(scratch.maintenance)
    looked = 0.0

    def poll() -> None:
        nonlocal looked
        if time.monotonic() - looked >= _LOOK_AT_SIZE_S:
            looked = time.monotonic()
            row = scratch.maintenance.execute(_SIZE, (scratch.name,)).fetchone()
            total = manifest.source.database_bytes
            progress.report(task, done=min(int(row[0]), total) if row else 0, total=total, unit="bytes")

    try:
        with listed(command, dump, policies=roles or policies, user_mappings=roles, keep=keep) as complete_command:
            run(
                [*complete_command, dump],
                login=access,
                poll=poll,
                tolerated=unknown_timeout(program, server_major=major),
            )
    except ProgramFailed as error:
        raise RestoreFailed(
            id=backup.id,
            name=scratch.name,
            reason=str(error),
            hint=f"See whether the backup can be read: dbplatform backup verify {backup.database} {backup.id}",
        ) from error


def tablespace_options(connection: AnyConnection) -> list[str]:
    """What lets pg_restore put everything into the default tablespace, on a server that has no other."""
    row = connection.execute(_HAS_TABLESPACES).fetchone()
    return [] if row is not None and row[0] else ["--no-tablespaces"]


@contextmanager
def listed(
    command: list[str | Path],
    dump: Path,
    *,
    policies: bool,
    user_mappings: bool,
    keep: Callable[[str], bool] | None = None,
) -> Iterator[list[str | Path]]:
    """The pg_restore command with a list of what to restore: without some kinds, and what ``keep`` says of the rest."""
    left_out = [pattern for pattern, kept in ((_POLICY, policies), (_USER_MAPPING, user_mappings)) if not kept]
    if not left_out and keep is None:
        yield command
        return
    answer = subprocess.run([command[0], "--list", dump], capture_output=True, env=own_environment(), check=False)
    if answer.returncode != 0:
        # What a killed program had said before is not why it ended.
        said = " ".join(answer.stderr.decode(errors="replace").split()) if answer.returncode > 0 else ""
        raise ProgramFailed(said or silent_end(command[0], answer.returncode))
    lines = answer.stdout.decode(errors="surrogateescape").splitlines(keepends=True)
    with tempfile.NamedTemporaryFile(suffix=".list") as wanted:
        entries = [line for line in lines if not any(pattern.match(line) for pattern in left_out)]
        kept = "".join(line for line in entries if line.startswith(";") or keep is None or keep(line))
        Path(wanted.name).write_text(kept, errors="surrogateescape")
        yield [*command, f"--use-list={wanted.name}"]
