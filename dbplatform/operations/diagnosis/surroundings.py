"""What the platform itself needs: Python, its home and disk, the embedded server, the ledger, variables."""

from __future__ import annotations

import os
import platform as machine
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from dbplatform import machines
from dbplatform.backups.errors import KeyUnreadable
from dbplatform.backups.files import size_words
from dbplatform.backups.keys import given_keys
from dbplatform.declaration.loading import Declared
from dbplatform.errors import CannotConnect, PlatformError
from dbplatform.machines import OnOneMachine
from dbplatform.operations import archives, backups
from dbplatform.operations.diagnosis.model import Finding, Patient, error, not_checked, ok, warn
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target, connect_plainly
from dbplatform.postgres.programs import find_programs
from dbplatform.storage.place import S3_SCHEME, StorageFailed

_LEDGER = "DBPLATFORM_LEDGER_URL"
#: Below these the home is nearly full, or as good as full.
_HOME_WARN, _HOME_ERROR = 1 << 30, 100 << 20

#: How long the broker may take to answer.
_BROKER_S = 5

_DATA_BYTES = """
    select coalesce(sum(pg_table_size(c.oid)), 0)::bigint as bytes
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')
"""
_LEDGER_RIGHTS = """
    select current_user as user, current_database() as database, pg_is_in_recovery() as standby,
           has_database_privilege(current_database(), 'CREATE') as creates,
           has_schema_privilege(to_regnamespace('ledger'), 'CREATE') as owns
"""


def python(platform: Platform) -> Iterator[Finding]:
    """The interpreter that runs this."""
    yield ok(f"{machine.python_version()} in {sys.prefix}")


def declarations(platform: Platform) -> Iterator[Finding]:
    """Those that do not hold, each with its place."""
    for broken in platform.declarations.broken:
        yield error(broken.error.message, broken.error.hint, file=broken.error.file, line=broken.error.line)
    held = len(platform.declarations.databases)
    if held:
        yield ok(f"{held} {'database is' if held == 1 else 'databases are'} declared in {platform.project.defs}")
    elif not platform.declarations.broken:
        yield warn(
            f"No database is declared in {platform.project.defs}.",
            "Write defs/<name>/defs.yaml, or name a project by -C.",
        )


def home(platform: Platform) -> Iterator[Finding]:
    """The folder of all that the platform writes: can it be written, and is there room?"""
    root = platform.home.root
    trouble = _cannot_write(root)
    if trouble:
        yield error(trouble, "Give yourself the right to write there, or set DBPLATFORM_HOME to another folder.")
        return
    free = _free(root)
    mend = "Make room there, or set DBPLATFORM_HOME to a folder on another disk."
    if free < _HOME_WARN:
        judge = error if free < _HOME_ERROR else warn
        yield judge(f"The disk of {root} has {size_words(free)} free.", mend)
    else:
        yield ok(f"{root}, {size_words(free)} free")


def server_programs(platform: Platform) -> Iterator[Finding]:
    """The programs of the embedded server, which holds scratch restores, and ledger and runs where nothing else is."""
    try:
        found = find_programs()
    except PlatformError as refused:
        yield error(refused.message, refused.hint)
        return
    yield ok(f"PostgreSQL {found.version} in {found.bin_dir}")


def spread(platform: Platform) -> Iterator[Finding]:
    """Whether work is spread over several machines, and what all of them have to reach."""
    if not machines.several():
        yield ok("one: steps run in the process of their run")
        return
    if (url := machines.broker()) is None:
        yield ok("several, each with whole runs")
        return
    try:
        from redis import Redis, RedisError
    except ImportError:
        yield error("Redis cannot be asked: its client is not installed.", "pip install 'dbplatform[celery]'")
        return
    try:
        with Redis.from_url(url, socket_connect_timeout=_BROKER_S, socket_timeout=_BROKER_S) as client:
            client.ping()
    except (RedisError, ValueError) as refused:
        said = f"{type(refused).__name__}: the broker does not answer, or does not let us in."
        yield error(said, f"Correct the URL in {machines.BROKER}, or start Redis.")
    else:
        yield ok("several: the broker answers, steps go to whichever worker is free")


def embedded_server(platform: Platform) -> Iterator[Finding]:
    """Whether it runs; it is not started."""
    status = platform.server.status()
    if status.running:
        yield ok(f"PostgreSQL {status.version} runs on {status.host}:{status.port}")
    else:
        yield not_checked("server stopped", "dbplatform server start (work that needs it starts it, too)")


def ledger(platform: Platform) -> Iterator[Finding]:
    """Whether the ledger can be reached and written, where it lies elsewhere than on the embedded server."""
    url = os.environ.get(_LEDGER)
    if not url and machines.several():
        refused = OnOneMachine(what="The ledger", place="its embedded server")
        yield error(refused.message, f"Name its database in {_LEDGER}.")
        return
    if not url:
        yield ok(f"on the embedded server ({_LEDGER} is not set)")
        return
    target = Target("the ledger", url)
    try:
        with connect_plainly(target, work="doctor") as session:
            row = session.execute(_LEDGER_RIGHTS).fetchone()
    except CannotConnect as refused:
        yield error(refused.message, f"{refused.hint} The variable is {_LEDGER}.")
        return
    assert row is not None
    user, database, standby, creates, owns = row
    if standby:
        yield error("The ledger's server is a replica, so nothing can be recorded.", f"Name the primary in {_LEDGER}.")
    elif not (creates if owns is None else owns):
        yield error(
            f"{user} may not create the ledger's tables in the database {database}.",
            "Grant it CREATE there, on the schema ledger or, where that is missing, on the database.",
        )
    else:
        yield ok(f"{target.place} answers and can be written")


def channels(platform: Platform, declared: Declared) -> Iterator[Finding]:
    """The variables of those who are told of alerts."""
    channels = declared.database.notify
    for index, channel in enumerate(channels):
        if not os.environ.get(channel.url_env):
            yield error(
                f"The environment variable {channel.url_env}, which holds the URL of a receiver of alerts, is not set.",
                f"export {channel.url_env}=..., an Apprise URL such as mailto://user:password@example.org",
                file=declared.document.shown,
                line=declared.document.line_of(("attributes", "notify", index, "url_env")),
            )
    told = sum(1 for channel in channels if os.environ.get(channel.url_env))
    if told or not channels:
        yield ok(f"{told} of {len(channels)} variables set" if channels else "nobody is told of alerts")


def destinations(platform: Platform, declared: Declared) -> Iterator[Finding]:
    """The folders of backups and archives: can they be written? Does the bucket answer? Nothing is made there."""
    named: dict[str, Path] = {}
    if declared.database.backups is not None:
        try:
            destination = backups.destination_of(platform, declared)
        except OnOneMachine as refused:
            yield error(refused.message, refused.hint, probe="backup folder")
        else:
            if destination.in_bucket:
                yield _bucket(destination.location(), "bucket of backups")
            else:
                named["backup folder"] = Path(destination.location())
        if declared.database.backups.encrypt_to:
            yield _key()
    for archive in declared.database.archives:
        try:
            to = archives.destination_of(platform, archive)
        except OnOneMachine as refused:
            yield error(refused.message, refused.hint, probe=f"folder of archive {archive.name}")
            continue
        if not isinstance(to, str):
            continue
        if to.startswith(S3_SCHEME):
            yield _bucket(to, f"bucket of archive {archive.name}")
        else:
            named[f"folder of archive {archive.name}"] = Path(to)
    for what, folder in named.items():
        trouble = _cannot_write(folder)
        if trouble:
            yield error(trouble, "Give yourself the right to write there, or declare another folder.", probe=what)
        else:
            yield ok(f"{folder}, {size_words(_free(folder))} free", probe=what)


def _key() -> Finding:
    """Whether this host could read its encrypted backups; one that only makes them need not."""
    try:
        keys = given_keys()
    except KeyUnreadable as refused:
        return error(refused.message, refused.hint, probe="backup key")
    if keys is None:
        return ok("none is given: this host backs up, drills and restores run where the key is", probe="backup key")
    return ok(f"{len(keys.identities)} in {keys.source}", probe="backup key")


def _bucket(location: str, probe: str) -> Finding:
    from dbplatform.storage.s3 import require_bucket  # boto3 is slow to import

    try:
        require_bucket(location)
    except StorageFailed as failure:
        return error(failure.message, failure.hint, probe=probe)
    return ok(f"{location} answers", probe=probe)


def room_for_backup(patient: Patient) -> Iterator[Finding]:
    """Whether a dump of all tables has room where backups go, measured as the backup measures its first one."""
    policy = patient.declared.database.backups
    if policy is None:
        yield ok("no backups are declared")
        return
    folder = backups.made_in(patient.platform, patient.declared)
    if trouble := _cannot_write(folder):
        yield not_checked(trouble)
        return
    needed, free = patient.ask_one(_DATA_BYTES)["bytes"], _free(folder)
    if free >= needed:
        yield ok(f"{size_words(free)} free; a backup may need {size_words(needed)}")
        return
    message = (
        f"{folder} has {size_words(free)} free; a backup of {patient.declared.name} may need {size_words(needed)}."
    )
    mend = "Make room there, or declare another destination."
    # Once there is a backup, its size counts, which is often a fraction of the tables'.
    before = folder / patient.declared.name
    judge = warn if before.is_dir() and any(before.iterdir()) else error
    yield judge(message, mend)


def _cannot_write(folder: Path) -> str | None:
    """Why nothing can be written there: asked of the nearest folder that exists, because nothing is made."""
    existing = folder
    while not existing.exists():
        existing = existing.parent
    if not existing.is_dir():
        return f"{existing} is a file, so there is no folder {folder}."
    if not os.access(existing, os.W_OK | os.X_OK):
        made = "" if existing == folder else f", so {folder} cannot be made"
        return f"You may not write to {existing}{made}."
    return None


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
