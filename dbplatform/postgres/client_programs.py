"""Client programs of PostgreSQL at work: how they log in, and what they said.

They get their login by environment variables; nothing secret is on a command line or in an error.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from dbplatform import supervised
from dbplatform.errors import UsageError
from dbplatform.postgres.connection import AnyConnection, Target

POLL_S = 0.2
_KEPT = re.compile(r"PATH|HOME|TMPDIR|LD_LIBRARY_PATH|DYLD_LIBRARY_PATH|PG.*|KRB5.*|SSL_CERT_.*")
_ERROR = re.compile(r"\b(?:error|fatal|panic): ", re.IGNORECASE)
_FEW_CHARACTERS = 600
#: The end of a program that says nothing of what it worked on.
ENDED_BY_SIGNAL = "was ended by signal"
#: What pg_restore says when a worker of its own is gone: behind the worker's error, or alone where it was killed.
WORKER_DIED = "worker process died unexpectedly"
_PIECE = 1 << 20


class SecretOnCommandLine(UsageError):
    """The URL of {target} holds {keyword}, which {program} can be given on its command line only."""


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


def run(
    command: Sequence[str | Path],
    *,
    login: Login | None = None,
    poll: Callable[[], None] = lambda: None,
    output: Callable[[bytes], None] | None = None,
    tolerated: Callable[[str], bool] = lambda line: False,
    together: bool = False,
) -> tuple[str, ...]:
    """Run a program to its end, calling ``poll`` a few times a second; the warnings it gave.

    What it writes goes to ``output`` in pieces, or nowhere. Raises ``ProgramFailed`` when it ends with another code
    than 0 or speaks of an error that is not ``tolerated``; with every error tolerated, only a signal counts.
    Whatever ``poll`` or ``output`` raises ends the program first. With ``together`` it gets SIGINT then, so that it can
    clean up, and also when this process is killed.
    """
    environment = dict(login.environment) if login else own_environment()
    with tempfile.TemporaryFile() as said:
        with subprocess.Popen(
            [sys.executable, "-P", supervised.__file__, *command] if together else command,
            env=environment,
            stdin=subprocess.PIPE if together else subprocess.DEVNULL,
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
                if process.stdin is not None:
                    process.stdin.close()
                else:
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


def _last_words(text: str, errors: list[str]) -> str:
    """The errors without the name of the program, with the details that follow them; else the last lines."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    kept = [line for line in lines if line in {error.strip() for error in errors} or "detail: " in line] or lines[-3:]
    words = "; ".join(re.sub(r"^pg_\w+: (?:error|detail|fatal): ", "", line) for line in kept)
    return words[:_FEW_CHARACTERS].rstrip(".")
