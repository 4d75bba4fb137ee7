"""Where the files of a seed lie, and their bytes: a folder, or the data of an installed package."""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from dbplatform.seeding.errors import BadCsv, SeedFileMissing, SeedMistake, SeedPackageMissing


@dataclass(frozen=True, slots=True)
class SeedFile:
    """A file, maybe compressed; ``name`` is what people call it."""

    name: str
    path: Path

    @property
    def bytes(self) -> int:
        """Its size on disk."""
        return self.path.stat().st_size

    def sha256(self) -> str:
        """The hash of the file as it lies there."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    @contextmanager
    def open(self) -> Iterator[BinaryIO]:
        """The bytes of its text, read as a stream; raises ``BadCsv`` when it cannot be unpacked."""
        try:
            if self.path.name.endswith(".zip"):
                with zipfile.ZipFile(self.path) as archive, archive.open(self._member(archive)) as stream:
                    yield cast(BinaryIO, stream)
            elif self.path.name.endswith(".gz"):
                with gzip.open(self.path, "rb") as stream:
                    yield cast(BinaryIO, stream)
            else:
                with self.path.open("rb") as stream:
                    yield stream
        except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise BadCsv(
                reason=f"it cannot be unpacked: {error}", file=self.name, hint="Fetch the file anew."
            ) from error

    def _member(self, archive: zipfile.ZipFile) -> str:
        ending = Path(self.path.stem).suffix
        names = [name for name in archive.namelist() if name.endswith(ending) and not name.startswith("__MACOSX/")]
        if len(names) != 1:
            raise BadCsv(
                reason=f"the archive holds {len(names)} files that end in {ending}",
                file=self.name,
                hint="It must hold exactly one.",
            )
        return names[0]


def locate(directory: Path, package: str | None, name: str) -> SeedFile:
    """The file of that name below the seed folder, or among the files of an installed distribution.

    The distribution is found by its metadata; none of its code is imported.
    """
    root = directory if package is None else _package_root(package)
    path = (root / name).resolve()
    if not path.is_relative_to(root.resolve()):
        raise SeedMistake(f"The seed file {name} lies outside of {root}.", hint="Name files below it.", file=directory)
    if not path.is_file():
        raise SeedFileMissing(
            name=name,
            place=f"the package {package}" if package else str(directory),
            hint="Correct its name in seed.yaml, or install the version of the package that has it.",
            file=directory,
        )
    return SeedFile(name, path)


def _package_root(package: str) -> Path:
    try:
        return Path(str(importlib.metadata.distribution(package).locate_file("")))
    except importlib.metadata.PackageNotFoundError as error:
        raise SeedPackageMissing(package=package, hint=f"Install it: pip install {package}.") from error
