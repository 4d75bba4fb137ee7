"""Memory that is refused while a file is read or written: no damage is told, nothing is lost, the next run goes on."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dbplatform.archiving.catalogue import list_archives
from dbplatform.backups.physical import packing
from dbplatform.errors import out_of_memory
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.postgres.archiving_support import (
    DATABASE,
    ORDERS,
    archive,
    ask,
    content,
    fill,
    only,
    restore,
    verify,
)


def refuse(*_: Any, **__: Any) -> Any:
    """What Arrow says."""
    raise pa.ArrowMemoryError("malloc of size 16777216 failed")


def test_memory_refused_while_an_archive_is_written_deletes_no_row_and_leaves_no_file(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(database, ORDERS)
    with monkeypatch.context() as short:
        short.setattr(pq.ParquetWriter, "write_table", refuse)
        with pytest.raises(MemoryError):
            archive(database, ledger, tmp_path)
    assert ask(database, "select count(*) from orders") == 1000
    assert list_archives(ledger, DATABASE) == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
    assert archive(database, ledger, tmp_path).deleted == 700


@pytest.mark.parametrize("refused", ["read_row_group", "csv"])
def test_memory_refused_while_an_archive_is_read_is_no_damage(
    database: Target, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    fill(database, ORDERS)
    before = content(database)
    archive(database, ledger, tmp_path)
    with monkeypatch.context() as short:
        if refused == "csv":
            short.setattr("dbplatform.archiving.parquet._csv", refuse)
        else:
            short.setattr(pq.ParquetFile, refused, refuse)
        for read in (restore, verify):
            with pytest.raises(MemoryError):
                read(database, ledger, only(ledger).id)
    assert (only(ledger).status, ask(database, "select count(*) from orders")) == ("deleted", 300)
    assert restore(database, ledger, only(ledger).id).restored == 700
    assert content(database) == before


def test_memory_refused_while_a_base_backup_is_unpacked_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"page" * 4096)
    packing.pack(tmp_path / "data", tmp_path / "packed", poll=lambda done: None)
    for said in (
        pa.ArrowMemoryError("malloc of size 1 failed"),
        OSError("ZSTD init failed: Allocation error : not enough memory"),
    ):
        with monkeypatch.context() as short:
            short.setattr(tarfile, "open", lambda said=said, **_: refuse_with(said))
            with pytest.raises(type(said)) as raised:
                packing.unpack(tmp_path / "packed", tmp_path, own=lambda path: None, poll=lambda done: None)
        told = out_of_memory(raised.value)
        assert told is not None
        assert "run it again" in (told.hint or "")


def refuse_with(error: Exception) -> Any:
    raise error
