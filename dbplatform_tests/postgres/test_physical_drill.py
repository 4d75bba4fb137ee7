"""The drill of a base backup: what it proves is so, and what is wrong it does not prove."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest

from dbplatform.backups.catalogue import list_backups
from dbplatform.backups.checked import CheckProof, Examine, no_checks
from dbplatform.backups.drill import list_drills
from dbplatform.backups.physical.drill import RecoveryProof, drill
from dbplatform.backups.physical.server import key_of
from dbplatform.backups.physical.targets import newest_archived_commit, plan_end
from dbplatform.backups.physical.witness import TableState, Witness, quiet_tables, witnesses
from dbplatform.ledger.physical import WitnessRecord
from dbplatform.postgres.connection import Target, connect
from dbplatform.postgres.embedded.account import SHARED_ROOT
from dbplatform.postgres.programs import find_programs
from dbplatform_tests.postgres.physical_support import NAME, Archiving, archiving, ledger_of


@pytest.fixture(scope="module")
def server(server_url: str, ledger_template: str) -> Iterator[Archiving]:
    with ledger_of(server_url, ledger_template) as ledger, archiving(ledger) as made:
        made.base()
        made.write(20)
        made.witness()
        made.switch()
        yield made


def prove(
    server: Archiving,
    *,
    quiet: dict[str, TableState] | None = None,
    share: float = 0.5,
    examine: Examine = no_checks,
) -> RecoveryProof:
    """A drill whose moment in between is known."""
    plan, newest = plan_end(server.ledger, NAME, server.archive, programs=find_programs())

    def choose(start: datetime, end: datetime) -> datetime:
        return start + share * (end - start)

    def live() -> dict[str, TableState]:
        with connect(server.shop, work="test") as connection:
            return quiet_tables(connection, first(server))

    return drill(
        plan,
        server.ledger,
        newest_commit=newest,
        rpo_seconds=1.5,
        quiet=live if quiet is None else lambda: quiet,
        place=server.place,
        programs=find_programs(),
        choose=choose,
        examine=examine,
    )


def first(server: Archiving) -> Witness:
    """The witness before the base backup, which tells of the tables."""
    return next(witness for witness in witnesses(server.ledger, server.system) if witness.tables)


def proven_at(server: Archiving) -> datetime | None:
    return list_backups(server.ledger, key_of(server.system))[0].proven_at


def test_a_whole_backup_is_proven_by_witnesses_and_quiet_tables(server: Archiving) -> None:
    seen: list[str] = []

    def examine(copy: Target) -> tuple[CheckProof, ...]:
        with connect(copy, work="test") as connection:
            seen.extend(name for (name,) in connection.execute("select current_database()").fetchall())
        return ()

    proof = prove(server, examine=examine)
    assert seen == [server.shop.name]
    assert (proof.proven, proof.errors) == (True, ())
    assert [table.table for table in proof.tables] == ["public.quiet"]
    assert all(table.match for table in proof.tables)
    assert proof.witnesses >= 4
    assert proof.rto_seconds is not None
    assert proof.rpo_seconds == 1.5
    assert proven_at(server) is not None
    record = list_drills(server.ledger, NAME)[0]
    assert (record.status, record.target) == ("proven", proof.end)
    assert list(server.place.iterdir()) == []
    in_its_stead = f"recoveries-{hashlib.sha256(bytes(server.place)).hexdigest()[:8]}"
    assert not (SHARED_ROOT / in_its_stead).exists()


def test_a_table_that_was_written_to_is_not_quiet(server: Archiving) -> None:
    with connect(server.shop, work="test") as connection:
        assert set(quiet_tables(connection, first(server))) == {"public.quiet"}


@pytest.mark.parametrize("change", [{"hash": "other"}, {"rows": 7}])
def test_a_quiet_table_with_other_content_is_not_proven(server: Archiving, change: dict[str, Any]) -> None:
    table = first(server).tables["public.quiet"]
    proof = prove(server, quiet={"public.quiet": replace(table, **change)})
    assert not proof.proven
    assert "public.quiet" in proof.errors[0]
    assert proven_at(server) is None
    assert list_drills(server.ledger, NAME)[0].status == "not proven"


def test_a_witness_that_is_missing_or_came_later_is_not_proven(server: Archiving) -> None:
    last = witnesses(server.ledger, server.system)[-1]
    never = str(int(last.xid) + 1_000_000)
    with server.ledger.session() as session:
        session.get_one(WitnessRecord, last.id).xid = never
    try:
        proof = prove(server)
    finally:
        with server.ledger.session() as session:
            session.get_one(WitnessRecord, last.id).xid = last.xid
    assert not proof.proven
    assert f"the transaction {never}" in proof.errors[0]
    assert "is missing" in proof.errors[0]

    early = first(server)
    with server.ledger.session() as session:
        record = session.get_one(WitnessRecord, early.id)
        record.began_at = record.ended_at = last.ended_at
    try:
        proof = prove(server)
    finally:
        with server.ledger.session() as session:
            record = session.get_one(WitnessRecord, early.id)
            record.began_at, record.ended_at = early.began_at, early.ended_at
    assert not proof.proven
    assert "is there although it came later" in proof.errors[0]


def test_the_newest_archived_commit_tells_what_would_be_lost(server: Archiving) -> None:
    archived = newest_archived_commit(server.ledger, NAME, server.archive, programs=find_programs())
    last = server.commit_times()[-1]
    assert timedelta(0) <= archived - last < timedelta(minutes=5)


def test_a_corrupted_page_is_found_although_the_files_are_what_was_written(server: Archiving) -> None:
    """The copy is faithful: it is the source that is broken, and the drill says so."""
    server.run("create table broken (id int primary key, word text)")
    server.run("insert into broken select g, md5(g::text) from generate_series(1, 500) g")
    with psycopg.connect(server.shop.url, autocommit=True) as connection:
        connection.execute("set allow_system_table_mods = on")
        # An index that no longer agrees with its table, as a bad disk or a changed collation leaves it.
        connection.execute("create table other as select * from broken where id <> 7")
        connection.execute("vacuum broken")
        row = connection.execute("select pg_relation_filenode('other'), pg_relation_filenode('broken')").fetchone()
        assert row is not None
        connection.execute("update pg_class set relfilenode = %s where oid = 'broken'::regclass", (row[0],))
        connection.execute("update pg_class set relfilenode = %s where oid = 'other'::regclass", (row[1],))
    server.base()
    server.witness()
    server.switch()
    proof = prove(server)
    assert not proof.proven
    assert "pg_amcheck finds corruption" in proof.errors[-1]
