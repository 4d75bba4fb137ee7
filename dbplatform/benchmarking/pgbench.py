"""Scripts by pgbench, PostgreSQL's own program: short slices of so many transactions, so that two sides can take turns.

The login comes by environment variables. What only reads runs with ``default_transaction_read_only``, once the server
has said that this mode has reached it, which a pooler may prevent; a script that would leave it is refused unless it is
declared as writing. What writes gets a copy of the database from its caller.
Source: PostgreSQL manual, "pgbench".
"""

from __future__ import annotations

import math
import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dbplatform.benchmarking.errors import BenchmarkFailed, NoValues, WritesUndeclared
from dbplatform.postgres.client_programs import Login

#: A slice takes about so long.
_SLICE_S = 0.1
_MOST_TRANSACTIONS = 100_000
_TPS = re.compile(r"tps = ([\d.]+) \((?:without initial connection time|excluding connections establishing)\)")
_FAILED = re.compile(r"number of failed transactions: (\d+)")
_LEAVES_READ_ONLY = re.compile(
    r"\bread\s+write\b|\b(?:default_)?transaction_read_only\b|\breset\s+all\b|\bdiscard\b", re.I
)
#: Fails where the mode did not reach the session.
_GUARD = "select 1 / (current_setting('default_transaction_read_only') = 'on')::int;\n"
#: How pgbench ends when a statement failed; where it could not even connect it ends with 1.
_STATEMENT_FAILED = 2
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """One script with the numbers that its variables begin with."""

    name: str
    text: str
    clients: int
    writes: bool
    variables: Mapping[str, str] = field(default_factory=dict)


def script(name: str, text: str, *, clients: int, writes: bool, variables: Mapping[str, Sequence[str]]) -> Script:
    """A script as it is run. Raises ``WritesUndeclared``, and ``NoValues`` for a variable that is no one number."""
    if not writes and _LEAVES_READ_ONLY.search(text):
        raise WritesUndeclared(name=name, hint="Declare writes: true: then it runs on a copy.")
    for variable, values in variables.items():
        if len(values) != 1 or not _NUMBER.fullmatch(values[0]):
            raise NoValues(parameter=variable, name=name, reason="a script takes one number", hint="Correct its query.")
    numbers = {variable: values[0] for variable, values in variables.items()}
    return Script(name=name, text=text, clients=clients, writes=writes, variables=numbers)


class SliceTimer:
    """Times one script against one database, with settings of its sessions."""

    def __init__(
        self,
        program: Path,
        login: Login,
        script: Script,
        folder: Path,
        *,
        settings: Mapping[str, str],
        statement_timeout_ms: int,
    ) -> None:
        self._program, self._dbname, self._script = program, login.dbname, script
        options = {**settings, "statement_timeout": str(statement_timeout_ms)}
        if not script.writes:
            options["default_transaction_read_only"] = "on"
        given = [
            login.environment.get("PGOPTIONS", ""),
            *(f"-c {name}={_escaped(one)}" for name, one in options.items()),
        ]
        self._environment = {**login.environment, "PGOPTIONS": " ".join(given).strip()}
        self._timeout_s = 60 + statement_timeout_ms / 1000
        self._file = folder / f"{script.name}.sql"
        begins = "".join(f"\\set {name} {number}\n" for name, number in script.variables.items())
        self._file.write_text(begins + script.text, encoding="utf-8")
        self._guard = None if script.writes else folder / f"{script.name}.guard.sql"
        if self._guard is not None:
            self._guard.write_text(_GUARD, encoding="utf-8")
        self.repeat = 1

    def warm(self) -> None:
        """Run a few transactions, and find how many of each client make a slice. Raises ``BenchmarkFailed``.

        Nothing is run where sessions that only read are not kept to it.
        """
        if self._guard is not None:
            self._assure(self._guard)
        seconds = self._slice(0, 3)
        seconds = self._slice(1, self._fitting(seconds / 4))
        self.repeat = self._fitting(seconds)

    def block(self, number: int) -> list[float]:
        """The seconds of one transaction of one client, in a slice of this round. Raises ``BenchmarkFailed``."""
        return [self._slice(number, self.repeat)]

    def _fitting(self, seconds: float) -> int:
        return min(max(math.ceil(_SLICE_S / max(seconds, 1e-6)), 1), _MOST_TRANSACTIONS)

    def _assure(self, guard: Path) -> None:
        code, _, errors = self._run(guard, clients=1, turn=0, transactions=1)
        if code == _STATEMENT_FAILED:
            raise BenchmarkFailed(
                name=self._script.name,
                reason="its sessions are not kept to reading: PGOPTIONS does not reach the server, as through "
                "PgBouncer with ignore_startup_parameters",
                hint="Declare a URL that goes past the pooler, or writes: true: then it runs on a copy.",
            )
        if code != 0 or errors:
            raise self._failed(_said(errors) or f"pgbench ended with {code}")

    def _slice(self, turn: int, transactions: int) -> float:
        clients = self._script.clients
        code, found, errors = self._run(self._file, clients=clients, turn=turn, transactions=transactions)
        tps, failures = _TPS.search(found), _FAILED.search(found)
        if code != 0 or tps is None or float(tps[1]) <= 0 or errors:
            raise self._failed(_said(errors) or f"pgbench ended with {code}")
        if failures is not None and int(failures[1]):
            raise self._failed(f"{failures[1]} of its transactions failed")
        return clients / float(tps[1])

    def _run(self, file: Path, *, clients: int, turn: int, transactions: int) -> tuple[int, str, list[str]]:
        """How pgbench ended, what it wrote, and the errors it spoke of."""
        command = [
            str(self._program), "--no-vacuum", "--protocol=prepared", f"--file={file}", f"--client={clients}",
            f"--jobs={min(clients, os.cpu_count() or 1)}", f"--transactions={transactions}",
            f"--random-seed={turn + 1}", self._dbname,
        ]  # fmt: skip
        with tempfile.TemporaryFile() as said:
            try:
                done = subprocess.run(
                    command,
                    env=self._environment,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    timeout=self._timeout_s,
                    cwd="/",
                )
            except subprocess.TimeoutExpired as error:
                raise self._failed(f"one slice took longer than {self._timeout_s:.0f} s") from error
            except OSError as error:
                raise self._failed(f"pgbench does not run: {error.strerror}") from error
            said.seek(0)
            errors = [line for line in said.read().decode(errors="replace").splitlines() if "error:" in line.lower()]
        return done.returncode, done.stdout.decode(errors="replace"), errors

    def _failed(self, reason: str) -> BenchmarkFailed:
        return BenchmarkFailed(
            name=self._script.name, reason=reason, hint="Try the script by hand: pgbench -n -f FILE."
        )


def _said(errors: Sequence[str]) -> str:
    """The first error in PostgreSQL's words."""
    return errors[0].split("rror:", 1)[1].strip().removeprefix("ERROR:").strip().rstrip(".") if errors else ""


def _escaped(value: str) -> str:
    """A value as PGOPTIONS takes it."""
    return re.sub(r"([\\\s])", r"\\\1", value)
