"""The data directory of the embedded server: made by initdb, complete or not at all."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import signal
from base64 import b64encode
from pathlib import Path

from dbplatform.errors import ServerError
from dbplatform.postgres.embedded.account import Account
from dbplatform.postgres.embedded.files import (
    NO_SPACE,
    disk_full,
    read_word,
    working_in,
    write_private,
)
from dbplatform.postgres.embedded.log import tail
from dbplatform.postgres.embedded.processes import end_processes_in
from dbplatform.postgres.programs import Programs

SUPERUSER = "dbplatform"
_STAGING = "data.new-"
_BUILTIN_LOCALE_SINCE = 17


def create_cluster(data_directory: Path, *, programs: Programs, account: Account, password: str) -> None:
    """Run initdb into a folder beside ``data_directory`` and rename it when it is complete.

    UTF8, the locale C.UTF-8 (the builtin provider from version 17), data checksums, SCRAM. The caller holds the
    server's lock.
    """
    folder = data_directory.parent
    with working_in(folder):
        staging = folder / f"{_STAGING}{secrets.token_hex(4)}"
        account.make_folder(staging)
        try:
            _initdb(staging, programs=programs, account=account, password=password)
            (staging / "data").rename(data_directory)
        finally:
            shutil.rmtree(staging)


def refuse_other_version(data_directory: Path, programs: Programs) -> None:
    """Raise ServerError when the data directory was made by another major version than the programs."""
    made_by = read_word(data_directory / "PG_VERSION")
    if made_by is not None and made_by != str(programs.major):
        raise ServerError(
            f"The data in {data_directory} was made by PostgreSQL {made_by}, but the programs in {programs.bin_dir} "
            f"are version {programs.version}.",
            hint=f"Name programs of version {made_by} in DBPLATFORM_PG_BIN; or, to move to version {programs.major}, "
            f"dump the databases with pg_dumpall of version {made_by}, move the folder away, start, and load the dump.",
        )


def remove_leftovers(folder: Path) -> None:
    """End and remove what a killed initdb left in ``folder``. The caller holds the server's lock."""
    for leftover in folder.glob(f"{_STAGING}*"):
        end_processes_in(leftover, signals=(signal.SIGKILL,))
        # What cannot be removed yet is in nobody's way, and the next start tries again.
        shutil.rmtree(leftover, ignore_errors=True)


def _initdb(staging: Path, *, programs: Programs, account: Account, password: str) -> None:
    password_file = staging / "password"
    write_private(password_file, _verifier(password))
    account.own(password_file)
    answer = account.run(
        [
            programs.path("initdb"),
            f"--pgdata={staging / 'data'}",
            f"--username={SUPERUSER}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--data-checksums",
            "--no-instructions",
            *_locale(programs, account),
        ],
        programs=programs,
        cwd=staging,
    )
    if answer.returncode != 0:
        if NO_SPACE in answer.stderr:
            raise disk_full(staging.parent)
        raise ServerError(
            f"initdb of PostgreSQL {programs.version} failed in {staging.parent}:{tail(answer.stderr)}",
            hint=f"See what it says; programs: {programs.bin_dir}.",
        )


def _verifier(password: str) -> str:
    """What the server keeps of a password (RFC 5803), derived in one round instead of 4096.

    Rounds slow down who guesses. Nobody guesses 192 random bits, and each new connection is 2 ms cheaper, of which
    Dagster opens hundreds in a run.
    """
    salt, rounds = os.urandom(16), 1
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, rounds)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    kept = [b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${rounds}:{kept[0]}${kept[1]}:{kept[2]}"


def _locale(programs: Programs, account: Account) -> list[str]:
    if programs.major >= _BUILTIN_LOCALE_SINCE:
        return ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]
    if shutil.which("locale") is None:
        return ["--locale=C"]
    known = account.run(["locale", "-a"]).stdout.lower().replace("-", "").split()
    return ["--locale=C.UTF-8"] if "c.utf8" in known else ["--locale=C"]
