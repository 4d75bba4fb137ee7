"""Who may read the backups: by the rights of their folder, and by the keys to which they are encrypted.

Rights are those of the file system: its owner, its group, everybody. An access list shows in the rights of the group;
the superuser of the machine reads everything anyway. Who may read a bucket is known to its provider alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from dbplatform.backups.manifest import SEALED
from dbplatform.backups.physical.server import key_of
from dbplatform.declaration.loading import Declared
from dbplatform.machines import OnOneMachine
from dbplatform.operations import backups
from dbplatform.operations.diagnosis.model import Finding, not_checked, ok, warn
from dbplatform.operations.platform import Platform

_READ, _ENTER = 4, 1
#: What a backup tells about itself is no content: names of tables, numbers of rows, hashes.
_TELLS = ".json"


def readers(platform: Platform, declared: Declared) -> Iterator[Finding]:
    """Of each folder with backups of the database, or of its server, who may read what lies there; nothing is made."""
    policy = declared.database.backups
    if policy is None:
        return
    keys = f"new ones are encrypted to {', '.join(policy.encrypt_to)}" if policy.encrypt_to else "not encrypted"
    try:
        destination = backups.destination_of(platform, declared)
    except OnOneMachine:
        return  # "backup folder" says so
    if destination.in_bucket:
        mend = "Look there: its policy, and who holds keys to it."
        yield not_checked(f"who may read {destination.location()} is known to its provider alone; {keys}", mend)
        return
    root = Path(destination.location())
    found = [root / declared.name, *(sorted(root.glob(key_of("*"))) if policy.physical else ())]
    there = [folder for folder in found if folder.is_dir()]
    if not there:
        yield ok(f"nothing is there yet; what comes will be its owner's alone; {keys}")
    for folder in there:
        probe = "readers of backups" if folder == found[0] else f"readers of {folder.name}"
        try:
            yield _told(folder, keys, probe)
        except OSError as refused:
            yield not_checked(f"{folder} could not be looked into: {refused.strerror}", probe=probe)


def _told(folder: Path, keys: str, probe: str) -> Finding:
    status = folder.stat()
    owner, group = _named(folder, status)
    if _reached(folder, None):
        return warn(
            f"Everybody on this machine can read backups in {folder} ({owner}:{group}); {keys}.",
            f"chmod -R go-rwx '{folder}'",
            probe=probe,
        )
    who = f"{owner} and the group {group} read" if _reached(folder, status.st_gid) else f"{owner} alone reads"
    return ok(f"{who} {folder}; {keys}", probe=probe)


def _reached(folder: Path, group: int | None) -> bool:
    """Whether the members of a group, or everybody, come to the content of a backup in the folder."""
    return all(_may(above.stat(), group, _ENTER) for above in folder.parents) and _inside(folder, group)


def _inside(folder: Path, group: int | None) -> bool:
    if not _may(folder.stat(), group, _ENTER):
        return False
    with os.scandir(folder) as entries:
        return any(
            _inside(Path(entry), group)
            if entry.is_dir(follow_symlinks=False)
            else not entry.name.endswith((SEALED, _TELLS)) and _may(entry.stat(follow_symlinks=False), group, _READ)
            for entry in entries
        )


def _may(status: os.stat_result, group: int | None, right: int) -> bool:
    """By the one class of rights that counts: whoever is in the group has its rights, and not everybody's."""
    return bool(status.st_mode >> (3 if group == status.st_gid else 0) & right)


def _named(folder: Path, status: os.stat_result) -> tuple[str, str]:
    """Owner and group, by their numbers where the machine has no names for them."""
    try:
        owner = folder.owner()
    except KeyError:
        owner = str(status.st_uid)
    try:
        return owner, folder.group()
    except KeyError:
        return owner, str(status.st_gid)
