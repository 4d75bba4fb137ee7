"""PostgreSQL's programs for backups: which installation fits, and what it can do. How they run: ``client_programs``."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from dbplatform.backups.errors import NoFittingProgram, NoSameProgram
from dbplatform.postgres.programs import Programs

_DEBIAN = Path("/usr/lib/postgresql")
#: From this version on pg_restore sets ``transaction_timeout``, which older servers do not know.
_SETS_TRANSACTION_TIMEOUT = 17


def dump_program(programs: Programs, *, server_major: int) -> Programs:
    """The installation to dump with: that of the server's major version, else the nearest newer one.

    Dumps of the server's own version can be restored into it again; those of a newer program only by way of
    ``tolerated``. Raises ``NoFittingProgram``.
    """
    return _nearest(programs, "pg_dump", at_least=server_major, to=server_major)


def restore_program(programs: Programs, *, dump_major: int, server_major: int | None = None) -> Programs:
    """The installation that reads a dump made by ``dump_major``, nearest to the server it goes to."""
    return _nearest(programs, "pg_restore", at_least=dump_major, to=server_major or dump_major)


def same_major(programs: Programs, name: str, *, major: int) -> Programs:
    """The installation of exactly that major version that has the program: files and WAL are no other's business.

    Raises ``NoSameProgram``.
    """
    found = list(_installed(programs, name))
    for one in found:
        if one.major == major:
            return one
    raise NoSameProgram(
        program=name,
        major=major,
        found=", ".join(f"{one.version} in {one.bin_dir}" for one in found) or "none",
        hint=f"Install PostgreSQL {major} with its server and client programs, or name their folder in "
        "DBPLATFORM_PG_BIN.",
    )


def compression_for(program: Programs, wanted: str) -> tuple[str, str]:
    """What pg_dump is told, and what that is called: ``wanted``, or gzip:1 where this program cannot do it."""
    method, _, level = wanted.partition(":")
    if program.major < 16:
        # Until 15 there is gzip alone, and --compress takes a bare level.
        if method == "none":
            return "0", "none"
        level = level if method == "gzip" and level else "1"
        return level, f"gzip:{level}"
    if method in ("gzip", "none") or _can_compress(program, wanted):
        return wanted, wanted
    return "gzip:1", "gzip:1"


def unknown_timeout(program: Programs, *, server_major: int) -> Callable[[str], bool]:
    """Which error of pg_restore says only that an older server does not know a setting of a newer program."""
    applies = program.major >= _SETS_TRANSACTION_TIMEOUT > server_major

    def tolerated(line: str) -> bool:
        return applies and 'unrecognized configuration parameter "transaction_timeout"' in line

    return tolerated


def stops_at_once(program: Programs, *, server_major: int) -> bool:
    """Whether pg_restore may be told to stop at the first error: not where that is the one of ``unknown_timeout``."""
    return not program.major >= _SETS_TRANSACTION_TIMEOUT > server_major


def _nearest(programs: Programs, name: str, *, at_least: int, to: int) -> Programs:
    if programs.major == max(at_least, to) and (programs.bin_dir / name).is_file():
        return programs
    found = list(_installed(programs, name))
    fitting = [one for one in found if one.major >= at_least]
    if not fitting:
        raise NoFittingProgram(
            program=name,
            at_least=at_least,
            found=", ".join(f"{one.version} in {one.bin_dir}" for one in found) or "none",
            hint=f"Install PostgreSQL's client programs of version {at_least} or newer, "
            "or name their folder in DBPLATFORM_PG_BIN.",
        )
    return min(fitting, key=lambda one: abs(one.major - to))


def _installed(programs: Programs, name: str) -> Iterator[Programs]:
    """The given installation, then the machine's own; each folder once."""
    seen = set()
    for folder in _folders(programs, name):
        real = folder.resolve()
        if real in seen or not os.access(folder / name, os.X_OK):
            continue
        seen.add(real)
        if folder == programs.bin_dir:
            yield programs
        elif (version := _version(folder / name)) is not None:
            yield Programs(bin_dir=folder, version=version, major=int(re.split(r"\D", version)[0]))


def _folders(programs: Programs, name: str) -> Iterable[Path]:
    yield programs.bin_dir
    yield from sorted(_DEBIAN.glob("*/bin"))
    found = shutil.which(name)
    if found:
        yield Path(found).parent


def _version(program: Path) -> str | None:
    """What the program calls itself; None when it does not run."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    match = re.search(r"\(PostgreSQL\) (\d[\w.]*)", answer.stdout)
    return match.group(1) if match and answer.returncode == 0 else None


def _can_compress(program: Programs, compression: str) -> bool:
    """Ask pg_dump itself: it looks at its compression before it looks for a server, and here there is none."""
    with tempfile.TemporaryDirectory() as nowhere:
        answer = subprocess.run(
            [program.path("pg_dump"), "--format=custom", f"--compress={compression}", f"--host={nowhere}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={"PATH": os.defpath, "LC_ALL": "C", "PGCONNECT_TIMEOUT": "5"},
        )
    return "compress" not in answer.stderr
