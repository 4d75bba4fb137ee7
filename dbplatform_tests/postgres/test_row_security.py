"""Row-level security of the declared systems: what an application's session sees of its rows, and what it can write."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import sql

from dbplatform.postgres.connection import Target, connect
from dbplatform_tests.by_hand import by_hand
from dbplatform_tests.postgres.test_five_systems import migrate

ANN, BOB = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))


@contextmanager
def application(database: Target, system: str, rows: str) -> Iterator[psycopg.Connection[Any]]:
    """A session of a role that may read and write every table, and owns none, in the migrated system."""
    with connect(database, work="test") as owner:
        migrate(owner, system)
    by_hand(database, rows.replace("ANN", f"'{ANN}'::uuid").replace("BOB", f"'{BOB}'::uuid"))
    role = sql.Identifier(f"app_{uuid.uuid4().hex[:8]}")
    with psycopg.connect(database.url, autocommit=True) as session:
        session.execute(sql.SQL("create role {}").format(role))
        session.execute(
            sql.SQL("grant select, insert, update, delete on all tables in schema public to {}").format(role)
        )
        session.execute(sql.SQL("set role {}").format(role))
        yield session
        session.execute("reset role")
        session.execute(sql.SQL("drop owned by {0}; drop role {0}").format(role))


def count(session: psycopg.Connection[Any], table: str) -> int:
    row = session.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone()
    assert row is not None
    return int(row[0])


def works_for(session: psycopg.Connection[Any], setting: str, value: str) -> None:
    session.execute("select set_config(%s, %s, false)", (setting, value))


#: ANN and BOB stand for their ids.
INVOICES = """
    insert into users (id, email, full_name, role, password_hash)
        select id, name || '@example.org', name, 'approver', '$2b$12$' || repeat('x', 53)
        from (values (ANN, 'ann'), (BOB, 'bob')) u (id, name);
    insert into vendors (id, name, country, currency) values (ANN, 'v', 'DE', 'EUR');
    insert into vendor_bank_accounts (vendor_id, iban, bic) values (ANN, 'DE02120300000000202051', 'BYLADEM1001');
    insert into invoices (id, file_name, file_hash, file_bytes)
        values (ANN, 'a.pdf', repeat('a', 64), 1), (BOB, 'b.pdf', repeat('b', 64), 1);
    insert into approvals (invoice_id, approver_id, decision) values (ANN, ANN, 'approved'), (BOB, BOB, 'rejected');
"""
PATIENTS = """
    insert into organizations (id, name) values (ANN, 'A'), (BOB, 'B');
    insert into users (id, organization_id, email, first_name, last_name, role, npi, password_hash)
        select id, id, name || '@example.org', 'f', 'l', 'provider', '1234567890', '$2b$12$' || repeat('x', 53)
        from organizations;
    insert into patients (id, organization_id, mrn, first_name, last_name, birth_date, sex)
        select id, id, 'm', 'f', 'l', '2000-01-01', 'other' from organizations;
    insert into encounters (id, organization_id, patient_id, provider_id, kind, reason, scheduled_at)
        select id, id, id, id, 'office', 'r', now() from organizations;
    insert into notes (id, encounter_id, provider_id, subjective, objective, assessment, plan)
        select id, id, id, 's', 'o', 'a', 'p' from organizations;
    insert into note_revisions (note_id, revision, author_id, body) select id, 1, id, '{}' from organizations;
    insert into icd10_codes (code, title) values ('A00', 't');
    insert into note_diagnoses (note_id, code, rank) select id, 'A00', 1 from organizations;
    insert into recordings (id, encounter_id, storage_key, duration_s, size_bytes, recorded_at)
        select id, id, name, 1, 1, now() from organizations;
    insert into transcripts (recording_id, model, content, word_count) select id, 'm', 'c', 1 from organizations;
"""
#: What is an organization's own, in the order of their policies.
APART = ("patients", "encounters", "notes", "recordings", "transcripts", "note_revisions", "note_diagnoses")


def test_bank_accounts_are_for_the_treasury(database: Target) -> None:
    with application(database, "ap_intake", INVOICES) as session:
        assert count(session, "vendor_bank_accounts") == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            session.execute("insert into vendor_bank_accounts (vendor_id, iban, bic) values (%s, 'x', 'y')", (ANN,))
        works_for(session, "ap_intake.role", "treasury")
        assert count(session, "vendor_bank_accounts") == 1


def test_an_approval_is_ones_own_and_nobody_changes_it(database: Target) -> None:
    with application(database, "ap_intake", INVOICES) as session:
        assert count(session, "approvals") == 0
        works_for(session, "ap_intake.user_id", ANN)
        assert session.execute("select approver_id::text from approvals").fetchall() == [(ANN,)]
        assert session.execute("update approvals set decision = 'rejected'").rowcount == 0
        assert session.execute("delete from approvals").rowcount == 0
        insert = "insert into approvals (invoice_id, approver_id, decision) values (%s, %s, 'approved')"
        session.execute(insert, (BOB, ANN))
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            session.execute(insert, (ANN, BOB))
        works_for(session, "ap_intake.role", "treasury")
        assert count(session, "approvals") == 3


def test_nobody_deletes_an_approval_by_deleting_its_invoice(database: Target) -> None:
    with application(database, "ap_intake", INVOICES) as session:
        works_for(session, "ap_intake.user_id", ANN)
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            session.execute("delete from invoices where id = %s", (BOB,))
        works_for(session, "ap_intake.role", "treasury")
        assert count(session, "approvals") == 2


def test_an_organization_reaches_no_patient_of_another(database: Target) -> None:
    with application(database, "scribemed", PATIENTS) as session:
        assert {count(session, table) for table in APART} == {0}
        works_for(session, "scribemed.organization_id", ANN)
        assert {count(session, table) for table in APART} == {1}
        assert session.execute("select id::text from notes").fetchall() == [(ANN,)]
        assert session.execute("update notes set plan = 'x' where id = %s", (BOB,)).rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            session.execute("update patients set organization_id = %s", (BOB,))
        works_for(session, "scribemed.organization_id", "")
        assert {count(session, table) for table in APART} == {0}


def test_an_organization_reads_and_writes_no_text_of_another(database: Target) -> None:
    with application(database, "scribemed", PATIENTS) as session:
        works_for(session, "scribemed.organization_id", ANN)
        for table in ("note_revisions", "note_diagnoses"):
            found = sql.SQL("select note_id::text from {}").format(sql.Identifier(table))
            assert session.execute(found).fetchall() == [(ANN,)]
        assert session.execute("delete from transcripts where recording_id = %s", (BOB,)).rowcount == 0
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            session.execute("insert into note_revisions values (%s, 2, %s, '{}')", (BOB, BOB))
        session.execute("update notes set plan = 'x'")
        kept = session.execute("select note_id::text, revision, body ->> 'plan' from note_revisions where revision > 1")
        assert kept.fetchall() == [(ANN, 2, "p")], "the trigger keeps what a note said before"


def test_the_owner_sees_every_row_so_that_backups_and_checks_do(database: Target) -> None:
    with application(database, "scribemed", PATIENTS), psycopg.connect(database.url) as owner:
        assert count(owner, "patients") == 2
