"""The embedded server keeps its WAL exactly where a base backup could use it; its spool fills nobody's disk."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from unittest import mock

import pytest
from sqlalchemy import delete

from dbplatform.backups import catalogue
from dbplatform.backups.catalogue import list_backups
from dbplatform.backups.physical.server import key_of
from dbplatform.backups.physical.spool import waiting
from dbplatform.declaration.loading import Declared
from dbplatform.declaration.project import Project
from dbplatform.ledger.backups import BackupRecord
from dbplatform.operations import recovery, wal
from dbplatform.operations.platform import Platform
from dbplatform_tests.installation import Installation, small_project
from dbplatform_tests.postgres.physical_support import until

_DECLARATION = """
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {directory: migrations}
  backups:
    physical: {wal_archive: true}
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    migration = "create table item (id int primary key, word text);"
    with small_project(tmp_path_factory.mktemp("shop"), _DECLARATION, migration) as installation:
        installation.here("migrate", "apply", "shop")
        yield installation


@pytest.fixture
def platform(shop: Installation) -> Iterator[Platform]:
    with mock.patch.dict(os.environ, shop.environment, clear=True):
        yield Platform(Project.at(shop.folder))


@pytest.fixture
def declared(platform: Platform) -> Declared:
    return platform.declarations.get("shop")


def finish_a_segment(shop: Installation) -> str:
    """Write, begin a new segment, and wait until the server has done with the old one what it does."""
    with shop.connect("shop") as connection:
        connection.execute("insert into item select coalesce(max(id), 0) + 1, 'word' from item")
        connection.commit()
        row = connection.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
        connection.commit()
        assert row is not None

        def done() -> bool:
            last = connection.execute("select last_archived_wal >= %s from pg_stat_archiver", row).fetchone()
            connection.commit()
            return last is not None and bool(last[0])

        until(done)
    return str(row[0])


def test_before_the_first_base_backup_no_wal_is_kept(
    shop: Installation, platform: Platform, declared: Declared
) -> None:
    finish_a_segment(shop)
    assert waiting(platform.server.wal_spool) == []
    told = shop.here("wal", "status", "shop", exit_code=1)
    assert "the server lets its WAL go" in " ".join(told["findings"])
    assert not wal.catch_up(platform, declared)


def test_what_a_base_backup_that_failed_has_kept_is_let_go_at_the_next_look(
    shop: Installation, platform: Platform, declared: Declared
) -> None:
    system = wal.remember_seat(platform, declared).system
    platform.server.keep_wal()
    kept = finish_a_segment(shop)
    assert kept in [path.name for path in waiting(platform.server.wal_spool)]
    assert wal.bring(platform, declared) == ()
    assert waiting(platform.server.wal_spool) == []
    assert wal.archive_of(platform, declared, system).files() == {}
    finish_a_segment(shop)
    assert waiting(platform.server.wal_spool) == []


def test_wal_is_kept_for_a_base_backup_that_lies_there_whole_while_its_row_says_running(
    shop: Installation, platform: Platform, declared: Declared
) -> None:
    """As after a kill, or with the ledger away, right behind its manifest: the next base backup takes it up."""
    away = mock.patch.object(catalogue, "complete", side_effect=ConnectionError("the ledger is away"))
    with away, pytest.raises(ConnectionError):
        recovery.take(platform, declared)
    after = finish_a_segment(shop)
    assert after in wal.bring(platform, declared)
    later = finish_a_segment(shop)
    recovery.take(platform, declared)
    assert [backup.status for backup in wal.known(platform, declared)] == ["complete", "complete"]
    system = wal.remember_seat(platform, declared).system
    assert {after, later} <= wal.archive_of(platform, declared, system).files().keys()
    [window] = wal.status(platform, declared).windows
    assert window.broken_at is None


def test_from_the_first_base_backup_on_all_wal_is_kept_even_where_the_catalogue_is_lost(
    shop: Installation, platform: Platform, declared: Declared
) -> None:
    shop.here("backup", "create", "shop", "--kind", "physical")
    bases = [one.id for one in wal.known(platform, declared)]
    after = finish_a_segment(shop)
    assert after in wal.bring(platform, declared)
    with platform.ledger.session() as session:
        session.execute(delete(BackupRecord))
    later = finish_a_segment(shop)
    assert later in wal.bring(platform, declared)
    system = wal.remember_seat(platform, declared).system
    assert [one.id for one in list_backups(platform.ledger, key_of(system))] == bases
    platform.server.let_wal_go()
    assert wal.catch_up(platform, declared), "it does not believe that, either"
    assert platform.server.keeps_wal


def test_a_server_whose_spool_somebody_has_removed_keeps_its_wal(shop: Installation, platform: Platform) -> None:
    platform.server.keep_wal()
    shop.here("server", "stop")
    shutil.rmtree(platform.server.wal_spool)
    shop.here("server", "start")
    assert platform.server.keeps_wal
    kept = finish_a_segment(shop)
    assert kept in [path.name for path in waiting(platform.server.wal_spool)]
