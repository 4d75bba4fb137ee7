"""Brings one database back as it was at a moment: the whole server recovered aside, the database copied out of it.

The copy goes through pg_dump and pg_restore, from pipe to pipe, into a database of our own naming on the target server;
every table is compared with the recovered one before the copy gets its name. Subscriptions are left out. A killed
recovery leaves a folder and a database of our own naming, which the next one removes.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dbplatform import progress
from dbplatform.backups.compare import TableProof, compare
from dbplatform.backups.contents import everything, read_content, read_source, ready_to_read
from dbplatform.backups.errors import RestoreFailed, ServerTooOld
from dbplatform.backups.files import require_room
from dbplatform.backups.loading import check_server, tablespace_options
from dbplatform.backups.manifest import Manifest
from dbplatform.backups.physical.base import reading_chain
from dbplatform.backups.physical.cluster import Cluster, recovering
from dbplatform.backups.physical.errors import RecoveryFailed
from dbplatform.backups.physical.targets import RecoveryPlan
from dbplatform.backups.physical.unpacking import required_keys
from dbplatform.backups.programs import dump_program, restore_program
from dbplatform.backups.restore import finish, may_become, rename
from dbplatform.backups.scratch import Scratch, drop, maintained, scratch_database
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import login, silent_end
from dbplatform.postgres.connection import Target, connect, snapshot
from dbplatform.postgres.programs import Programs

_DATABASES = "select datname from pg_database where datallowconn and not datistemplate order by 1"
_SIZE = "select pg_database_size(oid) from pg_database where datname = %s"
_LOOK_AT_SIZE_S = 0.5
_LAST = "select pg_last_xact_replay_timestamp()"


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryReport:
    """What was brought back, and to where the recovery came."""

    backup_id: str
    name: str
    replaced: bool
    target: str
    last_commit: datetime | None
    """The last transaction that was replayed; none where the base backup itself was the target."""
    timeline_id: int
    wal_files: int
    seconds: float
    erased_again: dict[str, int]
    """Rows by table that were there then and were erased on purpose since."""
    tables: tuple[TableProof, ...]

    def as_json(self) -> dict[str, Any]:
        """The document of ``restore --json``."""
        return {
            "backup_id": self.backup_id,
            "name": self.name,
            "replaced": self.replaced,
            "target": self.target,
            "last_commit": self.last_commit.isoformat() if self.last_commit else None,
            "timeline": self.timeline_id,
            "wal_files": self.wal_files,
            "seconds": self.seconds,
            "erased_again": self.erased_again,
            "tables": [table.as_json() for table in self.tables],
        }


def check_recovery(plan: RecoveryPlan, server: Target, name: str, *, replace: str | None, room: Path | None) -> None:
    """What can be known of the keys and the target server before a recovery starts; only reads.

    Raises ``DatabaseExists``, ``ReplaceMismatch``, ``ServerTooOld``, ``NoRoom``, ``KeyMissing`` and ``WrongKey``.
    """
    for backup, manifest in plan.chain:
        required_keys(backup, manifest)
    source = plan.manifest.source
    with connect(server, work="recovery plan") as connection:
        may_become(connection, server, name, replace)
        if connection.info.server_version // 10000 < source.server_major:
            raise ServerTooOld(
                id=plan.base.id,
                needed=source.server_version,
                server=server.place,
                actual=connection.info.parameter_status("server_version"),
                hint=f"Restore to PostgreSQL {source.server_major} or newer.",
            )
    if room is not None:
        require_room(room, source.server_bytes, work=f"the restored {plan.database}")


def recover_database(
    plan: RecoveryPlan,
    server: Target,
    name: str,
    ledger: Ledger,
    *,
    place: Path,
    programs: Programs,
    replace: str | None = None,
    room: Path | None = None,
    before_named: Callable[[Target], Mapping[str, int]] = lambda restored: {},
    before_renamed: Callable[[], None] = lambda: None,
    sleep: Callable[[float], None] = time.sleep,
) -> RecoveryReport:
    """Restore the plan's database as it was at its moment into ``name``, on the server that ``server`` connects to.

    ``server`` is any database there but ``name``; ``place`` a folder where the whole source server has room. A database
    ``name`` that exists is refused unless ``replace`` repeats its name; then it is dropped after the new one has its
    name. ``before_named`` is called with the copy once it is compared, to erase what must not come back;
    ``before_renamed`` last of all, and it may raise.

    Reports ``recover <database>`` in WAL files, ``copy <name>`` in bytes, and the facts ``recover <database>: cleared,
    unpacked, verified, recovered, created, copied, compared, renamed, done``. Raises what ``check_recovery`` and
    ``recovering`` raise, ``RecoveryFailed``, ``ServerLacks`` and ``RestoreFailed``.
    """
    started = time.monotonic()
    check_recovery(plan, server, name, replace=replace, room=room)
    with (
        reading_chain(ledger, (link for link, _ in plan.chain)),
        recovering(plan, place, ledger, programs=programs) as cluster,
    ):
        cluster.recover(plan.moment)
        _step(plan, "recovered")
        source = _database_of(cluster)
        manifest, last_commit = _described(plan, source)
        with connect(server, work="recovery plan") as connection:
            check_server(connection, server, plan.base, manifest, roles=True, room=room)
        with (
            maintained(server) as (connection, token),
            scratch_database(connection, token, server, manifest.source.locale, purpose="restore") as scratch,
        ):
            _step(plan, "created")
            _copy(source, scratch, manifest, programs, name)
            _step(plan, "copied")
            tables = compare(scratch.target, manifest, task=f"compare {name}")
            if differences := [table.difference for table in tables if table.difference]:
                raise RestoreFailed(
                    id=plan.base.id, name=name, reason="; ".join(differences), hint="Run the restore again."
                )
            _step(plan, "compared")
            erased_again = before_named(scratch.target)
            finish(scratch, manifest, owners=True)
            before_renamed()
            replaced = rename(connection, scratch, server, name, replace=replace, sleep=sleep)
            _step(plan, "renamed")
            if replaced is not None:
                drop(connection, replaced)
    _step(plan, "done")
    return RecoveryReport(
        backup_id=plan.base.id,
        name=name,
        replaced=replaced is not None,
        target=plan.moment.words,
        last_commit=last_commit,
        timeline_id=plan.way.id,
        wal_files=len(plan.wal),
        seconds=time.monotonic() - started,
        erased_again=dict(erased_again),
        tables=tables,
    )


def _database_of(cluster: Cluster) -> Target:
    """The plan's database on the recovered server; raises ``RecoveryFailed`` where it did not exist then."""
    plan = cluster.plan
    with connect(cluster.target("postgres"), work="recovery") as connection:
        names = [name for (name,) in connection.execute(_DATABASES).fetchall()]
    if plan.on_server not in names:
        raise RecoveryFailed(
            target=plan.moment.words,
            reason=f"the database {plan.on_server} did not exist then",
            hint=f"There were: {', '.join(names)}.",
        )
    return cluster.target(plan.on_server)


def _described(plan: RecoveryPlan, source: Target) -> tuple[Manifest, datetime | None]:
    """What the recovered database holds, as the manifest of a dump says it; and the last commit in it."""
    with connect(source, work="recovery") as connection:
        ready_to_read(connection)
        row = connection.execute(_LAST).fetchone()
        with snapshot(connection) as moment:
            described = read_source(moment)
            relations = everything(moment)
            contents = []
            for done, relation in enumerate(relations):
                progress.report(f"count {plan.database}", done=done, total=len(relations), unit="tables")
                contents.append(read_content(moment, relation))
    now = datetime.now(UTC)
    manifest = Manifest(
        id=plan.base.id,
        database=plan.database,
        started_at=now,
        finished_at=now,
        source=described,
        program=plan.manifest.program,
        program_major=plan.manifest.program_major,
        compression="none",
        warnings=(),
        tables=tuple(contents),
        files=(),
    )
    return manifest, row[0] if row else None


def _copy(source: Target, scratch: Scratch, manifest: Manifest, programs: Programs, name: str) -> None:
    """pg_dump into pg_restore; raises ``RestoreFailed`` with the words of whichever failed."""
    server_major = scratch.maintenance.info.server_version // 10000
    dumping = dump_program(programs, server_major=manifest.source.server_major)
    restoring = restore_program(programs, dump_major=dumping.major, server_major=server_major)
    dump_from = login(source, work=f"copies {scratch.token}")
    restore_into = login(scratch.target, work=f"loads {scratch.token}", server_of=scratch.maintenance)
    dump: list[str | Path] = [
        dumping.path("pg_dump"),
        "--format=custom",
        "--compress=0",
        "--no-subscriptions",
        "--no-password",
        f"--dbname={dump_from.dbname}",
    ]
    restore: list[str | Path] = [
        restoring.path("pg_restore"),
        f"--dbname={restore_into.dbname}",
        "--exit-on-error",
        "--no-password",
        *tablespace_options(scratch.maintenance),
    ]
    with tempfile.TemporaryFile() as dump_said, tempfile.TemporaryFile() as restore_said:
        with (
            subprocess.Popen(
                dump, env=dump_from.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=dump_said
            ) as out,
            subprocess.Popen(
                restore, env=restore_into.environment, stdin=out.stdout, stdout=subprocess.DEVNULL, stderr=restore_said
            ) as into,
        ):
            assert out.stdout is not None
            out.stdout.close()  # so that pg_dump hears when pg_restore ends first
            try:
                while into.poll() is None:
                    _tell_size(scratch, manifest, task=f"copy {name}")
                    with suppress(subprocess.TimeoutExpired):
                        into.wait(_LOOK_AT_SIZE_S)
            except BaseException:
                out.terminate()
                into.terminate()
                raise
        # Whichever ended first is the cause; both must have ended well, or a part would look like the whole.
        for program, process, said, access in (
            ("pg_restore", into, restore_said, restore_into),
            ("pg_dump", out, dump_said, dump_from),
        ):
            if process.returncode != 0:
                said.seek(0)
                words = " ".join(said.read().decode(errors="replace").split())
                for secret in access.secrets:
                    words = words.replace(secret, "***")
                raise RestoreFailed(
                    id=manifest.id,
                    name=name,
                    reason=words[:600].rstrip(".") or silent_end(program, process.returncode),
                    hint="Nothing was changed. Mend what it says and restore again.",
                )


def _tell_size(scratch: Scratch, manifest: Manifest, *, task: str) -> None:
    row = scratch.maintenance.execute(_SIZE, (scratch.name,)).fetchone()
    total = manifest.source.database_bytes
    progress.report(task, done=min(int(row[0]), total) if row else 0, total=total, unit="bytes")


def _step(plan: RecoveryPlan, fact: str) -> None:
    progress.report(f"recover {plan.database}: {fact}", done=1, total=1, unit="step")
