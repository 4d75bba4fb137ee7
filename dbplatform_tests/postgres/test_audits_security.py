"""The audit of security: each fault is made on a real server and found; what may not be read is said, not passed."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.monitoring import collect
from dbplatform.monitoring.audits import security
from dbplatform.monitoring.audits.finding import Audit, Finding
from dbplatform.monitoring.audits.policy import AcceptedFinding, accepted
from dbplatform.postgres.connection import Target
from dbplatform_tests.by_hand import by_hand

pytest_plugins = ("dbplatform_tests.postgres.audited_database",)

NOW = datetime(2026, 3, 1, tzinfo=UTC)

#: What is done in an empty database: the rule, the object, words of the evidence, and whether its mend ends it.
FAULTS = {
    "everybody may make objects": (
        "grant create on schema public to public",
        ("public_create", "public", "every role", True),
    ),
    "everybody may read": (
        "create table open (id int); grant select on open to public",
        ("public_read", "public.open", "SELECT", True),
    ),
    "everybody may read a column": (
        "create table open (id int, secret text); grant select (id) on open to public",
        ("public_read", "public.open", "SELECT", False),
    ),
    "everybody may write": (
        "create table open (id int); grant insert on open to public",
        ("public_write", "public.open", "INSERT", True),
    ),
    "everybody by default": (
        "alter default privileges in schema public grant select on tables to public",
        ("public_by_default", "public", "SELECT", True),
    ),
    "a function that looks names up by its caller's path": (
        "create function lent() returns int language sql security definer as 'select 1';"
        "revoke execute on function lent from public",
        ("security_definer_search_path", "public.lent()", "search_path", True),
    ),
    "a function that lends its owner's rights to everybody": (
        "create function lent(a int) returns int language sql security definer set search_path = public as 'select 1'",
        ("public_security_definer", "public.lent(a integer)", "PUBLIC", True),
    ),
    "policies that do not hold": (
        "create table salary (id int); create policy own on salary using (true)",
        ("policy_without_row_security", "public.salary", "own", True),
    ),
    "a view around the policies": (
        "create table salary (id int); alter table salary enable row level security;"
        "create view salaries as select * from salary",
        ("view_around_row_security", "public.salaries", "public.salary", True),
    ),
    "a table that refers to a protected one": (
        "create table person (id int primary key); alter table person enable row level security;"
        "create table visit (person_id int references person)",
        ("unprotected_neighbour", "public.visit", "public.person", True),
    ),
    "a table beside a protected one": (
        "create table person (id int); alter table person enable row level security; create table visit (id int)",
        ("unprotected_in_schema", "public", "visit", False),
    ),
    "an extension that reaches other servers": (
        "create extension dblink",
        ("dangerous_extension", "dblink", "superuser", False),
    ),
}


def audited(database: Target, *, production: bool = False) -> Audit:
    with collect.session(database) as connection:
        return security.audit(connection, database="shop", now=NOW, production=production)


def of(found: Audit, rule: str, object_: str) -> list[Finding]:
    """What was found of one object: tests beside this one make roles on the same server."""
    return [finding for finding in found.findings if (finding.rule.name, finding.object) == (rule, object_)]


@pytest.fixture
def database(audited_database: Target) -> Target:
    return audited_database


@pytest.fixture
def role(database: Target) -> Iterator[str]:
    """A role that can log in, and nothing else."""
    name = f"clerk_{uuid.uuid4().hex[:8]}"
    by_hand(database, f"create role {name} login password 'secret-word' valid until '2100-01-01'")
    yield name
    by_hand(database, f"drop owned by {name}", f"drop role {name}")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_and_its_mend_ends_it(database: Target, fault: str) -> None:
    statements, (rule, object_, words, mends) = FAULTS[fault]
    assert of(audited(database), rule, object_) == []
    by_hand(database, statements)
    (finding,) = of(audited(database), rule, object_)
    assert words in finding.evidence
    assert finding.rule.document.startswith("https://www.postgresql.org/docs/")
    if mends:
        assert finding.mend is not None
        by_hand(database, finding.mend)
        assert of(audited(database), rule, object_) == []


@pytest.mark.parametrize(
    ("attribute", "rule", "mends"),
    [
        ("superuser", "login_superuser", True),
        ("bypassrls", "login_bypassrls", True),
        ("createrole", "login_createrole", True),
        ("valid until 'infinity'", "password_without_expiry", False),
    ],
)
def test_a_role_with_more_rights_than_an_application_needs_is_found(
    database: Target, role: str, attribute: str, rule: str, mends: bool
) -> None:
    assert of(audited(database), rule, role) == []
    by_hand(database, f"alter role {role} {attribute}")
    (finding,) = of(audited(database), rule, role)
    if mends:
        by_hand(database, str(finding.mend))
        assert of(audited(database), rule, role) == []


def test_policies_that_do_not_bind_an_owner_who_can_log_in_are_a_notice(database: Target, role: str) -> None:
    by_hand(database, f"create table mine (id int); alter table mine owner to {role}, enable row level security")
    (finding,) = of(audited(database), "row_security_not_forced", "public.mine")
    assert finding.severity == "notice"
    by_hand(database, str(finding.mend))
    assert of(audited(database), "row_security_not_forced", "public.mine") == []


def test_a_member_of_a_role_that_reaches_the_server_is_critical(database: Target, role: str) -> None:
    by_hand(database, f"grant pg_execute_server_program to {role}")
    (finding,) = of(audited(database), "login_server_access", role)
    assert (finding.severity, finding.mend) == ("critical", f"REVOKE pg_execute_server_program FROM {role};")


def test_a_password_that_is_kept_as_md5_is_found_and_never_shown(database: Target, role: str) -> None:
    kept = "md5" + "0123456789abcdef" * 2
    with psycopg.connect(database.url, autocommit=True) as connection:
        connection.execute(sql.SQL("alter role {} password {}").format(sql.Identifier(role), sql.Literal(kept)))
    found = audited(database, production=True)
    (finding,) = of(found, "md5_password", role)
    assert finding.severity == "critical"
    assert kept not in str(found.as_json())


def test_the_review_of_access_counts_what_each_role_reaches(database: Target, role: str) -> None:
    by_hand(
        database,
        "create table a (id int, name text); create table b (id int); create schema shut; create table shut.c (id int)",
        f"grant select (name) on a to {role}; grant insert on b to {role}; grant select on shut.c to {role}",
        f"grant pg_monitor to {role}",
    )
    (one,) = [one for one in audited(database).inventory["access"] if one["role"] == role]
    assert (one["tables"], one["reads"], one["writes"], one["owns"]) == (3, 1, 1, 0)
    assert (one["superuser"], one["connects"], one["member_of"]) == (False, True, ["pg_monitor"])


def test_the_review_of_access_tells_who_has_a_role_and_what_that_gives(database: Target, role: str) -> None:
    group = f"{role}s"
    by_hand(
        database,
        f"create table a (id int); create role {group}; grant {group} to {role}",
        f"grant update on a to {group}; grant create on schema public to {group}",
    )
    try:
        found = {one["role"]: one for one in audited(database).inventory["access"]}
        assert (found[group]["login"], found[group]["members"], found[group]["writes"]) == (False, [role], 1)
        assert (found[role]["login"], found[role]["writes"], found[role]["creates_in"]) == (True, 1, ["public"])
    finally:
        by_hand(database, f"drop owned by {group}", f"drop role {group}")


def test_with_few_rights_the_rest_is_not_examined_and_the_grant_is_named(database: Target, role: str) -> None:
    by_hand(database, "create table open (id int); grant select on open to public", f"grant pg_monitor to {role}")
    found = audited(Target("shop", make_conninfo(database.url, user=role, password="secret-word")))
    assert len(of(found, "public_read", "public.open")) == 1, "the catalog is open to everybody"
    assert "superusers alone" in found.not_examined["md5_password"]
    assert f"TO {role}" in found.not_examined["hba_trust"]
    assert not {"md5_password", "hba_trust"} & set(found.examined)
    by_hand(database, "revoke select on open from public")
    assert audited(Target("shop", make_conninfo(database.url, user=role, password="secret-word"))).verdict != "passed"


def test_what_is_accepted_stays_in_the_report_and_fails_nothing(database: Target) -> None:
    by_hand(database, "create table open (id int); grant select on open to public")
    found = audited(database)
    assert found.verdict == "failed"
    meant = [AcceptedFinding(rule=one.rule.name, object="*", reason="a list of countries") for one in found.failing]
    told = accepted(found, meant)
    assert told.failing == ()
    assert of(told, "public_read", "public.open")[0].accepted == "a list of countries"


@pytest.mark.parametrize(
    ("session", "sslmode", "rules"),
    [
        ({"local": True, "tls": False}, "prefer", []),
        ({"local": False, "tls": False}, "prefer", ["tls_not_used"]),
        ({"local": False, "tls": True}, "require", ["tls_not_verified"]),
        ({"local": False, "tls": True}, "verify-full", []),
        ({"local": True, "tls": False, "listens": "*", "offered": False}, "prefer", ["tls_not_offered"]),
    ],
)
def test_a_session_that_leaves_this_machine_is_encrypted_and_verified(
    session: dict[str, object], sslmode: str, rules: list[str]
) -> None:
    row = {"client": "10.0.0.7", "version": "TLSv1.3", "offered": True, "listens": "localhost", **session}
    assert [found["rule"] for found in security.of_transport(row, sslmode)] == rules


@pytest.mark.parametrize(
    ("line", "rules"),
    [
        ("local all all - trust", ["hba_trust"]),
        ("host all all 127.0.0.1 scram-sha-256", []),
        ("host all all 0.0.0.0 trust", ["hba_trust_from_network", "hba_without_tls"]),
        ("hostssl all all 10.0.0.0 md5", ["hba_md5"]),
        ("host all all 10.0.0.0 password", ["hba_clear_password", "hba_without_tls"]),
        ("hostssl all all 10.0.0.0 cert", []),
        ("host all all 10.0.0.0 reject", []),
    ],
)
def test_each_line_of_pg_hba_conf_is_judged_by_where_it_lets_clients_in_from(line: str, rules: list[str]) -> None:
    kind, databases, roles, address, method = line.split()
    row = {
        "line_number": 7,
        "type": kind,
        "databases": databases,
        "roles": roles,
        "address": address,
        "auth_method": method,
        "error": None,
        "local": kind == "local" or address == "127.0.0.1",
    }
    found = list(security.of_hba([row]))
    assert [one["rule"] for one in found] == rules
    assert all("scram-sha-256" in one["mend"] for one in found)
