"""A folder as one compressed file, and a file as its compressed self: zstd, by pyarrow, a few MB of memory."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import pyarrow

from dbplatform.errors import out_of_memory

_PIECE = 1 << 20


class Unpackable(Exception):
    """What was packed cannot be unpacked; the text says why."""


def pack(folder: Path, to: Path, *, poll: Callable[[int], None]) -> None:
    """Write all below ``folder`` into the new tar file ``to``, on disk for sure; ``poll`` hears the bytes read."""
    done = 0
    with to.open("xb") as file:
        with (
            pyarrow.CompressedOutputStream(pyarrow.PythonFile(_Kept(file), "w"), "zstd") as stream,
            tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT, bufsize=_PIECE) as tar,
        ):
            for root, folders, names in os.walk(folder):
                folders.sort()
                here = Path(root)
                if here != folder:
                    tar.add(here, arcname=str(here.relative_to(folder)), recursive=False)
                for name in sorted(names):
                    path = here / name
                    tar.add(path, arcname=str(path.relative_to(folder)), recursive=False)
                    done += path.lstat().st_size
                    poll(done)
        file.flush()
        os.fsync(file.fileno())


def unpack(packed: Path, folder: Path, *, own: Callable[[Path], None], poll: Callable[[int], None]) -> None:
    """Write what ``pack`` packed into the existing empty ``folder``; ``own`` is given each file and folder made.

    Only plain files and folders below ``folder`` are made. Raises ``Unpackable`` for a file that is not what ``pack``
    writes, and ``OSError``.
    """
    done = 0
    try:
        with (
            pyarrow.CompressedInputStream(pyarrow.OSFile(str(packed)), "zstd") as stream,
            tarfile.open(fileobj=stream, mode="r|", bufsize=_PIECE) as tar,
        ):
            for member in tar:
                path, parts = folder / member.name, PurePosixPath(member.name)
                if parts.is_absolute() or ".." in parts.parts or not (member.isdir() or member.isreg()):
                    raise Unpackable(f"{member.name} does not belong into it")
                if member.isdir():
                    path.mkdir(mode=0o700, exist_ok=True)
                else:
                    content = tar.extractfile(member)
                    assert content is not None
                    with _new(path) as file:
                        shutil.copyfileobj(content, file, _PIECE)
                own(path)
                done += member.size
                poll(done)
    except (tarfile.TarError, pyarrow.ArrowException, OSError, EOFError) as error:
        raise _reason(error) from error


def compress(path: Path, to: Path) -> None:
    """Write the compressed ``path`` into the new file ``to``, on disk for sure."""
    with to.open("xb") as file:
        with (
            path.open("rb") as source,
            pyarrow.CompressedOutputStream(pyarrow.PythonFile(_Kept(file), "w"), "zstd") as stream,
        ):
            shutil.copyfileobj(source, stream, _PIECE)
        file.flush()
        os.fsync(file.fileno())


def expand(packed: Path, to: Path) -> None:
    """Undo ``compress``. Raises ``Unpackable`` and ``OSError``."""
    try:
        with (
            pyarrow.CompressedInputStream(pyarrow.OSFile(str(packed)), "zstd") as stream,
            _new(to) as file,
        ):
            shutil.copyfileobj(stream, file, _PIECE)
    except (pyarrow.ArrowException, OSError, EOFError) as error:
        raise _reason(error) from error


class _Kept:
    """A file that a stream above it does not close: it is still to be synced."""

    def __init__(self, file: object) -> None:
        self._file = file
        self.closed = False

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)

    def close(self) -> None:
        self.closed = True


def _new(path: Path) -> BinaryIO:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _reason(error: Exception) -> Unpackable:
    """Arrow raises what it cannot unpack as an OSError without a number; with one it is the disk's.

    Want of memory says nothing of the file, and comes through.
    """
    if (isinstance(error, OSError) and error.errno is not None) or out_of_memory(error):
        raise error
    return Unpackable(" ".join(str(error).split()) or "it is cut short")
