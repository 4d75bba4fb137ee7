"""What pg_dump writes becomes a migration: statements alone, without passwords, whoever runs it."""

from __future__ import annotations

import pytest

from dbplatform.migrations.dumped import as_baseline
from dbplatform.migrations.statements import split
from dbplatform.postgres.identifiers import Relation

DUMP = r"""
--
-- PostgreSQL database dump
--

\restrict Abc123

SET statement_timeout = 0;
SET transaction_timeout = 0;
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;

CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;
COMMENT ON EXTENSION hstore IS 'data type for storing sets of (key, value) pairs';

CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $_$ select '\restrict; ${name}' $_$;

SET default_table_access_method = heap;

CREATE TABLE public.t (id integer, "to" text DEFAULT 'a;b');
ALTER TABLE ONLY public.t
    ADD CONSTRAINT t_fkey FOREIGN KEY (id) REFERENCES hidden."T"(id);
CREATE POLICY "to using" ON public.t FOR SELECT TO "Some Body", reader USING ((id > 0));
GRANT SELECT(id) ON TABLE public.t TO reader WITH GRANT OPTION;
GRANT ALL ON TABLE public.t TO PUBLIC;
REVOKE ALL ON FUNCTION public.f() FROM PUBLIC;
GRANT ALL ON FUNCTION public.f() TO pg_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE me IN SCHEMA public GRANT SELECT ON TABLES TO readers;
ALTER DEFAULT PRIVILEGES FOR ROLE "O'Neill" REVOKE ALL ON TABLES FROM PUBLIC;
CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (host 'h', password 'it''s', "apiKey" 'k');
CREATE USER MAPPING FOR me SERVER s OPTIONS (password 'x');

\unrestrict Abc123
"""


def baseline() -> str:
    return as_baseline(DUMP, database="shop", user="me", hidden=[Relation("hidden", "T")]).text


def test_what_belongs_to_a_restore_is_gone() -> None:
    text = baseline()
    for gone in (
        "\\restrict Abc123",
        "\\unrestrict",
        "transaction_timeout",
        "statement_timeout",
        "COMMENT ON EXTENSION",
    ):
        assert gone not in text
    for kept in ("set_config('search_path', '', false)", "SET check_function_bodies = false", "'\\restrict; ${name}'"):
        assert kept in text
    guard_and_roles = 2
    kept_statements = as_baseline(DUMP, database="shop", user="me", hidden=[Relation("hidden", "T")]).statements
    assert len(split(text).statements) == kept_statements + guard_and_roles


def test_it_makes_the_roles_that_it_names_and_no_others() -> None:
    found = as_baseline(DUMP, database="shop", user="me")
    assert found.roles == ("O'Neill", "Some Body", "reader", "readers")
    assert "'{O''Neill,\"Some Body\",reader,readers}'" in found.text
    assert "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT" in found.text


def test_no_secret_is_kept_and_what_is_left_out_is_told() -> None:
    found = as_baseline(DUMP, database="shop", user="me", hidden=[Relation("hidden", "T")])
    assert "it''s" not in found.text
    assert "USER MAPPING" not in found.text
    assert "host 'h', password 'hidden', \"apiKey\" 'hidden'" in found.text
    assert "REFERENCES" not in found.text
    assert len(found.notes) == 3


def test_what_looks_like_a_placeholder_is_none() -> None:
    assert as_baseline(DUMP, database="shop", user="me").settings == "placeholderReplacement=false\n"
    assert as_baseline("CREATE TABLE t ();", database="shop", user="me").settings is None


@pytest.mark.parametrize(
    "secret",
    [
        """headers := '{"Authorization":"Bearer eyJhbGciOiJIUzI1NiJ9.x"}'""",
        """body := '{"password":"hunter2"}'""",
        "dblink('postgresql://app:hunter2@db.example/shop')",
        "'DefaultEndpointsProtocol=https;AccountKey=aHVudGVyMg=='",
        "'token=hunter2'",
    ],
)
def test_what_looks_like_a_secret_is_told(secret: str) -> None:
    found = as_baseline(f"select f({secret});", database="shop", user="me")
    [note] = found.notes
    assert note.startswith("Look for a password in the baseline before you commit it: select f")


@pytest.mark.parametrize("harmless", ["'https://example.org:8080/a@b'", "password::text", "key = 1"])
def test_what_is_no_secret_is_not_told(harmless: str) -> None:
    assert as_baseline(f"select {harmless};", database="shop", user="me").notes == ()


def test_an_option_whose_value_holds_a_secret_is_hidden() -> None:
    dump = "CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (url 'https://u:hunter2@h/x', host 'db.example');"
    found = as_baseline(dump, database="shop", user="me")
    assert "OPTIONS (url 'hidden', host 'db.example')" in found.text
    assert found.notes == ("An option that looks secret is 'hidden' in the baseline: create server ...",)
