"""The small files of the embedded server, and what is said when a folder cannot take them."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dbplatform.errors import ServerError

NO_SPACE = "No space left on device"


@contextmanager
def working_in(folder: Path) -> Iterator[None]:
    """Turn a failure of the file system inside the block into one sentence that names ``folder``."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise disk_full(folder) from error
        raise ServerError(
            f"The embedded server cannot use the folder {folder}: {error.strerror}"
            f"{f' ({error.filename})' if error.filename else ''}.",
            hint="Give yourself the right to write there, or set DBPLATFORM_HOME to a folder of your own.",
        ) from error


def disk_full(folder: Path) -> ServerError:
    """The disk that holds ``folder`` has no room for the server."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free_mb = shutil.disk_usage(existing).free // 1_000_000
    return ServerError(
        f"The disk of {folder} is full: {free_mb} MB are free, an empty server takes about 60 MB.",
        hint="Free some space there, or set DBPLATFORM_HOME to a folder on another disk.",
    )


def read_word(file: Path) -> str | None:
    """The stripped content of a small file; None when there is none."""
    try:
        return file.read_text().strip() or None
    except FileNotFoundError:
        return None


def write_private(file: Path, text: str) -> None:
    """Write a small file with mode 0600, complete or not at all."""
    fresh = file.with_name(file.name + ".new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(file)
