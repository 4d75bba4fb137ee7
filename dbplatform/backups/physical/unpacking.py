"""From base backups at their destination to the data directory of one server."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from dbplatform import progress
from dbplatform.backups.catalogue import Backup, damaged, mark_damaged
from dbplatform.backups.errors import BackupDamaged, KeyMissing, WrongKey
from dbplatform.backups.files import require_files
from dbplatform.backups.keys import IDENTITY_FILE, Keys, given_keys
from dbplatform.backups.physical.errors import RecoveryFailed
from dbplatform.backups.physical.feed import AHEAD
from dbplatform.backups.physical.manifest import PACKED, PhysicalManifest
from dbplatform.backups.physical.packing import Unpackable, unpack
from dbplatform.backups.physical.targets import RecoveryPlan
from dbplatform.backups.sealing import copy_out, opens
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.client_programs import silent_end
from dbplatform.postgres.embedded.account import Account
from dbplatform.postgres.programs import Programs


def room_for(plan: RecoveryPlan) -> int:
    """The data directory, twice where it is put together from several, and the WAL that lies ready."""
    sizes = [manifest.data_bytes for _, manifest in plan.chain]
    combined = max(plan.manifest.source.server_bytes, sizes[0]) if len(sizes) > 1 else 0
    packed = max((0, *(manifest.bytes for link, manifest in plan.chain if link.in_bucket or manifest.encrypted_to)))
    return sum(sizes) + combined + packed + (AHEAD + 2) * plan.manifest.source.segment_bytes


def require_chain(plan: RecoveryPlan, ledger: Ledger) -> None:
    """Raise unless the files of every base backup are what was written, and a key opens those that are encrypted.

    Raises ``KeyMissing``, ``WrongKey``, ``BackupUnreadable``, and ``BackupDamaged``: then the ledger marks it.
    """
    for backup, manifest in plan.chain:
        required_keys(backup, manifest)
        try:
            require_files(backup, manifest)
        except BackupDamaged as error:
            mark_damaged(ledger, backup.id, [str(error.fields["problems"])])
            raise


def unpack_chain(plan: RecoveryPlan, folder: Path, account: Account, programs: Programs) -> None:
    """Write the data directory ``folder/data`` for the server's user, put together where it rests on several backups.

    Reports ``unpack <database>`` in bytes. Raises ``RecoveryFailed`` for what cannot be unpacked, and ``WrongKey``.
    """
    total = sum(manifest.data_bytes for _, manifest in plan.chain)
    before = 0
    links: list[str | Path] = []
    for number, (backup, manifest) in enumerate(plan.chain):
        into = folder / ("data" if len(plan.chain) == 1 else f"link-{number}")
        account.make_folder(into)
        _unpack(
            backup,
            manifest,
            into,
            account,
            lambda done, before=before: progress.report(  # type: ignore[misc]
                f"unpack {plan.database}", done=before + done, total=total, unit="bytes"
            ),
            plan,
        )
        before += manifest.data_bytes
        links.append(into)
    if len(links) > 1:
        combine = [programs.path("pg_combinebackup"), "--no-sync", *links, f"--output={folder / 'data'}"]
        answer = account.run(combine, programs=programs)
        if answer.returncode != 0:
            # What a killed program had said before is not why it ended.
            said = " ".join(answer.stderr.split()) if answer.returncode > 0 else ""
            raise broken(plan, said or silent_end("pg_combinebackup", answer.returncode))
        for link in links:
            shutil.rmtree(link)


def broken(plan: RecoveryPlan, reason: str) -> RecoveryFailed:
    return RecoveryFailed(
        target=plan.moment.words,
        reason=reason[:600].rstrip("."),
        hint=f"Take a base backup now, and try an older one: dbplatform backup list {plan.database}",
    )


def _unpack(
    backup: Backup,
    manifest: PhysicalManifest,
    into: Path,
    account: Account,
    poll: Callable[[int], None],
    plan: RecoveryPlan,
) -> None:
    """Unpack one base backup for the server's user; a file that cannot be unpacked is ``RecoveryFailed``.

    One that is encrypted or in a bucket is brought here first. Raises ``WrongKey``.
    """
    plain = not backup.in_bucket and not manifest.encrypted_to
    packed = backup.folder / PACKED if plain else into.with_name("packed")
    try:
        if not plain:
            keys = required_keys(backup, manifest)
            with backup.store.reading(manifest.packed) as stream, packed.open("xb") as file:
                _, _, failure = copy_out(stream, file, keys)
            if failure is not None:
                raise Unpackable("it cannot be decrypted")
        unpack(packed, into, own=account.own, poll=poll)
    except Unpackable as error:
        raise broken(plan, f"{manifest.packed} of {backup.id} cannot be unpacked: {error}") from error
    if not plain:
        packed.unlink()


def required_keys(backup: Backup, manifest: PhysicalManifest) -> Keys | None:
    """The given keys, one of which opens the backup; None where it is not encrypted.

    Raises ``KeyMissing``, ``KeyUnreadable``, ``WrongKey``, or ``BackupDamaged`` where the file is missing.
    """
    if not manifest.encrypted_to:
        return None
    keys, words = given_keys(), ", ".join(manifest.encrypted_to)
    if keys is None:
        raise KeyMissing(
            id=backup.id, hint=f"Let {IDENTITY_FILE} name the file of the key; it is encrypted to {words}."
        )
    try:
        with backup.store.reading(manifest.packed) as file:
            if opens(file, keys):
                return keys
    except FileNotFoundError:
        raise damaged(backup, f"{manifest.packed} is missing") from None
    raise WrongKey(
        id=backup.id,
        recipients=words,
        count=len(keys.identities),
        source=keys.source,
        hint=f"Name the file with the right one in {IDENTITY_FILE}.",
    )
