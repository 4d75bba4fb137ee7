"""PostgreSQL's programs for backups: which installation fits, how they log in, what they said.

They get their login by environment variables; nothing secret is on a command line or in an error.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from dbplatform.backups.errors import NoFittingProgram, NoSameProgram, SecretOnCommandLine
from dbplatform.postgres.connection import AnyConnection, Target
from dbplatform.postgres.programs import Programs

POLL_S = 0.2
_DEBIAN = Path("/usr/lib/postgresql")
_KEPT = re.compile(r"PATH|HOME|TMPDIR|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH|PG.*|KRB5.*|SSL_CERT_.*")
_ERROR = re.compile(r"\b(?:error|fatal|panic): ", re.IGNORECASE)
_FEW_CHARACTERS = 600
#: The end of a program that says nothing of what it worked on.
ENDED_BY_SIGNAL = "was ended by signal"
#: What pg_restore says when a worker of its own is gone: behind the worker's error, or alone where it was killed.
WORKER_DIED = "worker process died unexpectedly"
_PIECE = 1 << 20
#: From this version on pg_restore sets ``transaction_timeout``, which older servers do not know.
_SETS_TRANSACTION_TIMEOUT = 17


class ProgramFailed(Exception):
    """A program ended with an error; the text is what it said last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How a program finds its database."""

    environment: Mapping[str, str] = field(repr=False)
    dbname: str
    """A connection string with what has no environment variable; holds no secret."""
    secrets: tuple[str, ...] = field(repr=False)


def login(target: Target, *, work: str, server_of: AnyConnection | None = None) -> Login:
    """The login of ``target`` for a program, with ``dbplatform <work>`` as its application name.

    Where the URL names several hosts, the program goes to the one that ``server_of`` is connected to. Raises
    ``SecretOnCommandLine`` for a secret that has no environment variable.
    """
    parts = {key: str(value) for key, value in conninfo_to_dict(target.url).items() if value is not None}
    parts.pop("client_encoding", None)
    if server_of is not None and "," in parts.get("host", "") + parts.get("port", ""):
        parts |= {"host": server_of.info.host, "port": str(server_of.info.port)}
        parts.pop("hostaddr", None)
    parts["application_name"] = f"dbplatform {work}"
    environment = own_environment()
    secrets = []
    for option in Conninfo.get_defaults():
        keyword = option.keyword.decode()
        if keyword not in parts or keyword == "dbname":
            continue
        secret = option.dispchar == b"*"
        if secret:
            secrets.append(parts[keyword])
        if option.envvar is not None:
            environment[option.envvar.decode()] = parts.pop(keyword)
        elif secret:
            raise SecretOnCommandLine(
                target=target.name,
                keyword=keyword,
                program="pg_dump",
                hint="Use a key without a passphrase, readable by this user only.",
            )
    return Login(environment=environment, dbname=make_conninfo(**parts), secrets=tuple(secrets))


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


def run(
    command: Sequence[str | Path],
    *,
    login: Login | None = None,
    poll: Callable[[], None] = lambda: None,
    output: Callable[[bytes], None] | None = None,
    tolerated: Callable[[str], bool] = lambda line: False,
) -> tuple[str, ...]:
    """Run a program to its end, calling ``poll`` a few times a second; the warnings it gave.

    What it writes goes to ``output`` in pieces, or nowhere. Raises ``ProgramFailed`` when it ends with another code
    than 0 or speaks of an error that is not ``tolerated``; with every error tolerated, only a signal counts.
    Whatever ``poll`` or ``output`` raises ends the program first.
    """
    environment = dict(login.environment) if login else own_environment()
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if output else subprocess.DEVNULL,
            stderr=said,
        ) as process:
            try:
                if output is not None and process.stdout is not None:
                    while piece := os.read(process.stdout.fileno(), _PIECE):
                        poll()
                        output(piece)
                while True:
                    poll()
                    with suppress(subprocess.TimeoutExpired):
                        code = process.wait(POLL_S)
                        break
            except BaseException:
                process.terminate()
                raise
        said.seek(0)
        text = said.read().decode(errors="replace")
    for secret in login.secrets if login else ():
        text = text.replace(secret, "***")
    errors = [line for line in text.splitlines() if _ERROR.search(line)]
    hard = [line for line in errors if not tolerated(line)]
    hard = [line for line in hard if WORKER_DIED not in line] or hard
    if code < 0 and not hard:
        raise ProgramFailed(silent_end(command[0], code))
    if hard or (code != 0 and not errors):
        raise ProgramFailed(_last_words(text, hard) or silent_end(command[0], code))
    return tuple(line for line in text.splitlines() if "warning: " in line and not errors)


def silent_end(program: str | Path, code: int) -> str:
    """How a program ended that said nothing: a machine out of memory, for one, ends it without a word."""
    name = Path(program).name
    return f"{name} {ENDED_BY_SIGNAL} {-code}" if code < 0 else f"{name} ended with code {code}"


def own_environment() -> dict[str, str]:
    """What a program is told of our environment: where things are, libpq's variables; English and UTC."""
    environment = {name: value for name, value in os.environ.items() if _KEPT.fullmatch(name)}
    environment.pop("PGCLIENTENCODING", None)
    return {**environment, "LC_ALL": "C", "TZ": "UTC"}


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


def _last_words(text: str, errors: list[str]) -> str:
    """The errors without the name of the program, with the details that follow them; else the last lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if line in {error.strip() for error in errors} or "detail: " in line] or lines[-3:]
    words = "; ".join(re.sub(r"^pg_\w+: (?:error|detail|fatal): ", "", line) for line in kept)
    return words[:_FEW_CHARACTERS].rstrip(".")
