"""A whole server, recovered aside: its files in a folder of its own, reachable by a private socket alone.

Nothing of the source's configuration is used, so that it archives nowhere, follows no other server, runs no
subscription and no scheduled job, and loads no library. It is removed at the end; what a killed process left is ended
and removed by the next one: a folder whose lock is free has nobody.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex

from psycopg.conninfo import make_conninfo
from psycopg.pq import PGconn, Ping

from dbplatform import progress
from dbplatform.backups.catalogue import mark_damaged
from dbplatform.backups.files import require_room
from dbplatform.backups.physical.errors import NotLookedAt, RecoveryFailed
from dbplatform.backups.physical.feed import Feed
from dbplatform.backups.physical.tablespaces import IN_PLACE, are_in_place
from dbplatform.backups.physical.targets import Moment, RecoveryPlan
from dbplatform.backups.physical.unpacking import broken, require_chain, room_for, unpack_chain
from dbplatform.backups.physical.wal import Segments, lsn_words
from dbplatform.backups.programs import same_major
from dbplatform.errors import WorkError
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import silent_end
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.account import (
    SHARED_ROOT,
    Account,
    account_for,
    readable_programs,
    shared_root_locked,
)
from dbplatform.postgres.embedded.processes import cluster_name, end_processes_in
from dbplatform.postgres.programs import Programs

_PREFIX = "recovery-"
#: In ``SHARED_ROOT``, in the place of a folder that the server's user cannot enter.
_INSTEAD = "recoveries-"
_POLL_S = 0.02
_PORT = "5432"
_CONTROL = re.compile(r"^(\w+) setting:\s+(\S+)$", re.MULTILINE)
#: Settings that a hot standby must have at least as high as its primary, by their name in ``pg_controldata``.
_AT_LEAST = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
_FATAL = re.compile(r"(?:FATAL|PANIC|ERROR|WARNING): +(.*)")
#: What a hot standby says, and waits, when its primary has raised a limit since the base backup.
_TOO_LOW = "because of insufficient parameter settings"
#: What a server says that has replayed all WAL that there is, and is not where it should be.
_NO_MORE_WAL = re.compile(r"FATAL: +(?:recovery ended before configured recovery target|WAL ends before )")
#: What a server says of a process of its own that the machine has ended: out of memory, for one.
_KILLED = "terminated by signal 9"
#: What a server says as an answer to the end of another of its processes: never the cause.
_CONSEQUENCE = re.compile(r"the database system is|terminating|startup process|aborting")


@dataclass(slots=True, kw_only=True)
class Cluster:
    """A recovering or recovered server."""

    plan: RecoveryPlan
    folder: Path
    socket: Path
    account: Account
    programs: Programs
    feed: Feed
    control: Mapping[str, str]
    """What ``pg_controldata`` says of the settings of the source."""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def target(self, database: str) -> Target:
        """A database of it, as the superuser that initdb made."""
        superuser = self.plan.manifest.source.superuser
        url = make_conninfo(
            host=str(self.socket), port=_PORT, user=superuser, dbname=database, sslmode="disable", gssencmode="disable"
        )
        return Target(f"the recovered {database}", url)

    def recover(self, moment: Moment, *, pause: bool = False) -> None:
        """Start it and replay WAL up to the moment; then it takes writes or, with ``pause``, answers questions only.

        From a pause it may be called again with a later moment. Raises ``RecoveryFailed`` with the server's own words,
        and ``TablespaceCreated``.
        """
        self._stop(signal.SIGINT)
        _configure(self.data, self._settings(moment, pause=pause), self.account)
        self._log.unlink(missing_ok=True)
        self.feed.begin()
        postgres: list[str | Path] = [self.programs.path("postgres"), "-D", self.data]
        self._process = self.account.start(postgres, programs=self.programs, cwd=self.folder, log=self._log)
        while not self._arrived(pause):
            if self._process.poll() is not None:
                raise self._ended(moment)
            if pause and _TOO_LOW in self._log.read_text(errors="replace"):
                raise self._failed(moment)
            self.feed.serve()
            time.sleep(_POLL_S)

    def remove(self) -> None:
        """Stop it and delete all of it."""
        self._stop(signal.SIGQUIT)
        _remove(self.folder)

    @property
    def _log(self) -> Path:
        return self.folder / "log"

    def _arrived(self, pause: bool) -> bool:
        where = make_conninfo(host=str(self.socket), port=_PORT, dbname="postgres", sslmode="disable")
        if PGconn.ping(where.encode()) != Ping.OK:
            return False
        if not pause:
            return True
        with connect(self.target("postgres"), work="recovery") as connection:
            row = connection.execute("select pg_is_in_recovery() and pg_is_wal_replay_paused()").fetchone()
        return row is not None and bool(row[0])

    def _settings(self, moment: Moment, *, pause: bool) -> dict[str, str]:
        settings = {
            "listen_addresses": "",
            "port": _PORT,
            "unix_socket_directories": str(self.socket),
            "unix_socket_permissions": "0700",
            "cluster_name": cluster_name(self.data),
            "hba_file": str(self.data / "pg_hba.conf"),
            "ident_file": str(self.data / "pg_ident.conf"),
            "log_line_prefix": "%m ",
            "log_timezone": "UTC",
            "archive_mode": "off",
            "restore_command": self.feed.command,
            "recovery_target_timeline": str(self.plan.way.id),
            "recovery_target_inclusive": "off",
            "recovery_target_action": "pause" if pause else "promote",
            # Without it nobody can ask before the end, and a primary whose limits were raised meanwhile stops nothing.
            "hot_standby": "on" if pause else "off",
            "max_logical_replication_workers": "0",
            "autovacuum": "off",
            # It is thrown away at the end.
            "fsync": "off",
            "full_page_writes": "off",
            "track_commit_timestamp": self.control.get("track_commit_timestamp", "off"),
            "max_wal_size": "4GB",
        }
        if are_in_place(self.data):
            settings[IN_PLACE] = "on"
        settings |= {name: self.control[known] for known, name in _AT_LEAST.items() if known in self.control}
        if moment.time is not None:
            settings["recovery_target_time"] = moment.time.isoformat()
        elif moment.lsn is not None:
            settings["recovery_target_lsn"] = lsn_words(moment.lsn)
        else:
            settings["recovery_target"] = "immediate"
        return settings

    def _stop(self, sign: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(sign)
            self._process.wait()
            self._process = None

    def _ended(self, moment: Moment) -> WorkError:
        """Why it came to no end: WAL that it was refused is the cause only where it had no more."""
        refusal = self.feed.refusal
        if refusal is not None and _NO_MORE_WAL.search(self._log.read_text(errors="replace")):
            return refusal
        return self._failed(moment)

    def _failed(self, moment: Moment) -> RecoveryFailed:
        said = self._log.read_text(errors="replace")
        causes = [words for words in _FATAL.findall(said) if not _CONSEQUENCE.search(words)]
        reason = "; ".join(dict.fromkeys(causes)) or " ".join(said.split())[-400:]
        code = self._process.returncode if self._process is not None else None
        if code == -signal.SIGKILL or _KILLED in said:
            reason = silent_end("postgres", -signal.SIGKILL)
        reason = reason or "the server ended without a word"
        return RecoveryFailed(
            target=moment.words,
            reason=reason.rstrip("."),
            hint=f"Nothing was changed. Try another base backup: dbplatform backup list {self.plan.database}",
        )


@contextmanager
def recovering(plan: RecoveryPlan, place: Path, ledger: Ledger, *, programs: Programs) -> Iterator[Cluster]:
    """The files of a server before its recovery, in a folder below ``place``; removed at the end of the block.

    ``place`` may lie where the server's user cannot go: then a folder of ``/var/lib/dbplatform`` is taken, which goes
    with the last recovery in it. First removes what killed recoveries left there. Reports ``unpack <database>`` in
    bytes and the facts ``recover <database>: cleared, unpacked, verified``. Raises ``NoRoom``, ``BackupDamaged`` (then
    the ledger marks the backup), ``NoSameProgram``, ``NotLookedAt`` and ``RecoveryFailed``.
    """
    account = account_for(place / "never made")
    programs = readable_programs(same_major(programs, "postgres", major=plan.manifest.source.server_major), account)
    with _enterable(place, account) as place, _folder(place, account) as (folder, socket):
        clear_killed(place)
        _step(plan, "cleared")
        require_room(place, room_for(plan), work=f"the recovered server of {plan.database}")
        require_chain(plan, ledger)
        data = folder / "data"
        unpack_chain(plan, folder, account, programs)
        _step(plan, "unpacked")
        answer = account.run([programs.path("pg_verifybackup"), "--quiet", data], programs=programs)
        if answer.returncode < 0:
            reason = silent_end("pg_verifybackup", answer.returncode)
            raise NotLookedAt(database=plan.database, reason=reason, hint="Run it again when the machine has room.")
        if answer.returncode != 0:
            said = " ".join(answer.stderr.split())
            mark_damaged(ledger, plan.base.id, [f"pg_verifybackup says {said}"])
            raise broken(plan, said)
        _step(plan, "verified")
        control = account.run([programs.path("pg_controldata"), data], programs=programs)
        feed = Feed(
            folder=folder / "feed",
            account=account,
            archive=plan.archive,
            wal=plan.wal,
            others=plan.histories,
            task=f"recover {plan.database}",
            waldump=programs.path("pg_waldump"),
            segments=Segments(plan.manifest.source.segment_bytes),
        )
        feed.make()
        cluster = Cluster(
            plan=plan,
            folder=folder,
            socket=socket,
            account=account,
            programs=programs,
            feed=feed,
            control=dict(_CONTROL.findall(control.stdout)),
        )
        try:
            yield cluster
        finally:
            cluster.remove()


def find_killed(home: Path) -> tuple[Path, ...]:
    """What killed recoveries have left below ``home`` or in its stead, and empty places of whatever home; only reads.

    What this user may not change is left out.
    """
    places = [place for place in (home, _instead_of(home)) if os.access(place, os.W_OK)]
    killed = [folder for place in places for folder in sorted(place.glob(f"{_PREFIX}*")) if _has_nobody(folder)]
    if not os.access(SHARED_ROOT, os.W_OK):
        return tuple(killed)
    return (*killed, *(place for place in sorted(SHARED_ROOT.glob(f"{_INSTEAD}*")) if not any(place.iterdir())))


def remove_killed(found: Path) -> bool:
    """End and remove one that was found; whether it was still there, with nobody in it."""
    if found.parent == SHARED_ROOT:
        return _removed_if_empty(found)
    gone = found.name in clear_killed(found.parent)
    if found.parent.parent == SHARED_ROOT:
        _removed_if_empty(found.parent)
    return gone


def _instead_of(place: Path) -> Path:
    """What is taken where the server's user cannot enter the place."""
    return SHARED_ROOT / f"{_INSTEAD}{hashlib.sha256(bytes(place)).hexdigest()[:8]}"


def _has_nobody(folder: Path) -> bool:
    try:
        with (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
    except OSError:  # somebody is in it, or it is just being removed
        return False


def _removed_if_empty(place: Path) -> bool:
    """Another recovery in it, or what a killed one left, keeps it."""
    with shared_root_locked():
        try:
            place.rmdir()
        except OSError:
            return False
    return True


def clear_killed(place: Path) -> tuple[str, ...]:
    """End and remove the recoveries below ``place`` that have lost their process; their folders' names."""
    cleared = []
    for folder in sorted(place.glob(f"{_PREFIX}*")):
        with suppress(FileNotFoundError), (folder / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            end_processes_in(folder, signals=(signal.SIGQUIT, signal.SIGKILL))
            _remove(folder)
            cleared.append(folder.name)
    return tuple(cleared)


@contextmanager
def _enterable(place: Path, account: Account) -> Iterator[Path]:
    """``place``, or in its stead one that the account can enter: ``_folder`` makes it, who leaves last removes it."""
    place.mkdir(parents=True, exist_ok=True)
    if account.can_enter(place):
        yield place
        return
    other = _instead_of(place)
    try:
        yield other
    finally:
        _removed_if_empty(other)


@contextmanager
def _folder(place: Path, account: Account) -> Iterator[tuple[Path, Path]]:
    """A locked folder for one recovery, and a short one for its socket, both of the server's user alone."""
    folder = place / f"{_PREFIX}{token_hex(4)}"
    # Made under another name and locked there: whoever clears must not find it without its lock.
    made = place / f".{folder.name}"
    if place.parent == SHARED_ROOT:
        with shared_root_locked():
            place.mkdir(mode=0o755, exist_ok=True)
            place.chmod(0o755)
            account.make_folder(made)
    else:
        account.make_folder(made)
    with (made / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        socket = Path(tempfile.mkdtemp(prefix="dbplatform-", dir="/tmp"))
        account.own(socket)
        (made / "socket").write_text(f"{socket}\n")
        made.rename(folder)
        try:
            yield folder, socket
        finally:
            _remove(folder)


def _remove(folder: Path) -> None:
    with suppress(FileNotFoundError):
        shutil.rmtree((folder / "socket").read_text().strip(), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _configure(data: Path, settings: Mapping[str, str], account: Account) -> None:
    """Our own configuration in the place of all that the source had."""
    lines = "".join(f"{name} = {_quoted(value)}\n" for name, value in settings.items())
    for name, text in (
        ("postgresql.conf", lines),
        ("postgresql.auto.conf", ""),
        ("pg_hba.conf", "local all all trust\n"),
        ("pg_ident.conf", ""),
        ("recovery.signal", ""),
    ):
        (data / name).write_text(text)
        (data / name).chmod(0o600)
        account.own(data / name)
    (data / "standby.signal").unlink(missing_ok=True)


def _quoted(value: str) -> str:
    return "'" + value.replace("\\", "\\\\").replace("'", "''") + "'"


def _step(plan: RecoveryPlan, fact: str) -> None:
    progress.report(f"recover {plan.database}: {fact}", done=1, total=1, unit="step")
