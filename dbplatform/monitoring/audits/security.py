"""The security of a database: how it is reached, who may do what in it, and what protects its rows.

Rights that the user lacks leave rules unexamined: passwords are known to superusers alone, ``pg_hba.conf`` to whoever
was granted its view. No password, nor what is kept of one, ever leaves the server.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Final

from dbplatform.monitoring.audits.access import roles_of
from dbplatform.monitoring.audits.finding import Audit, Auditing, Row, Rule, Severity
from dbplatform.monitoring.kind import manual
from dbplatform.postgres.connection import AutocommitConnection
from dbplatform.postgres.identifiers import quoted
from dbplatform.postgres.state import SCHEMA

_TLS = manual("ssl-tcp.html")
_VERIFY = manual("libpq-ssl.html#LIBQ-SSL-CERTIFICATES")
_HBA = manual("auth-pg-hba-conf.html")
_PASSWORDS = manual("auth-password.html")
_ROLES = manual("role-attributes.html")
_RIGHTS = manual("ddl-priv.html")
_POLICIES = manual("ddl-rowsecurity.html")
_DEFINER = manual("sql-createfunction.html#SQL-CREATEFUNCTION-SECURITY")

_TRANSPORT = ("tls_not_used", "tls_not_verified", "tls_not_offered")
_OF_HBA = ("hba_trust", "hba_trust_from_network", "hba_clear_password", "hba_md5", "hba_without_tls", "hba_broken")
_OF_PASSWORDS = ("md5_password",)


def _rule(
    name: str, severity: Severity, meaning: str, document: str, *, in_production: Severity | None = None
) -> tuple[str, Rule]:
    return name, Rule(name=name, severity=severity, meaning=meaning, document=document, in_production=in_production)


RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    dict(
        (
            _rule(
                "tls_not_used",
                "warning",
                "Whoever sits between client and server reads passwords' proofs and every row.",
                _TLS,
                in_production="critical",
            ),
            _rule(
                "tls_not_verified",
                "warning",
                "TLS without a check of the certificate and its name encrypts to whoever answers: sslmode=verify-full.",
                _VERIFY,
                in_production="critical",
            ),
            _rule("tls_not_offered", "warning", "The server listens beyond this machine and has no TLS (ssl).", _TLS),
            _rule("hba_trust", "notice", "Whoever may connect is believed.", _HBA, in_production="critical"),
            _rule("hba_trust_from_network", "critical", "Whoever reaches the server's port is believed.", _HBA),
            _rule("hba_clear_password", "warning", "The password travels as it is, unless TLS is around it.", _HBA),
            _rule("hba_md5", "notice", "md5 lets passwords in that are kept as MD5: scram-sha-256 does not.", _HBA),
            _rule("hba_without_tls", "warning", "Clients from elsewhere may connect without TLS: hostssl.", _HBA),
            _rule("hba_broken", "warning", "The line is ignored, so that another one decides.", _HBA),
            _rule(
                "md5_password",
                "warning",
                "What is kept as MD5 can be used to log in by whoever reads it, and is broken in days.",
                _PASSWORDS,
                in_production="critical",
            ),
            _rule("password_encryption", "warning", "New passwords would not be kept as SCRAM-SHA-256.", _PASSWORDS),
            _rule("password_without_expiry", "notice", "A password that leaked is good for ever.", _ROLES),
            _rule(
                "login_superuser",
                "warning",
                "An application as superuser turns any SQL injection into the server.",
                _ROLES,
            ),
            _rule(
                "bootstrap_superuser", "notice", "It cannot be taken its rights; keep it for people, locally.", _ROLES
            ),
            _rule("login_bypassrls", "warning", "Row-level security does not hold for it.", _ROLES),
            _rule(
                "login_createrole", "warning", "It can make a role with more rights than an application needs.", _ROLES
            ),
            _rule(
                "login_server_access",
                "critical",
                "Files and programs of the server are a way to superuser.",
                manual("predefined-roles.html"),
            ),
            _rule(
                "public_database", "notice", "By default every role of the server may enter every database.", _RIGHTS
            ),
            _rule(
                "public_create",
                "warning",
                "An object of the same name, earlier in search_path or of a fitter type, is used in place of yours.",
                manual("ddl-schemas.html#DDL-SCHEMAS-PATTERNS"),
                in_production="critical",
            ),
            _rule("public_read", "warning", "Every role that may connect can read it.", _RIGHTS),
            _rule(
                "public_write",
                "warning",
                "Every role that may connect can change it.",
                _RIGHTS,
                in_production="critical",
            ),
            _rule(
                "public_by_default",
                "warning",
                "Each new object is open to every role.",
                manual("sql-alterdefaultprivileges.html"),
            ),
            _rule(
                "security_definer_search_path",
                "warning",
                "Who calls it can put tables and operators of his own in its way, and have them run by its owner.",
                _DEFINER,
                in_production="critical",
            ),
            _rule("public_security_definer", "warning", "It lends its owner's rights to every role.", _DEFINER),
            _rule(
                "policy_without_row_security", "critical", "Somebody wrote policies, and none of them holds.", _POLICIES
            ),
            _rule(
                "unprotected_neighbour",
                "notice",
                "What is protected in one table may be told by the rows that refer to it.",
                _POLICIES,
            ),
            _rule("unprotected_in_schema", "notice", "Tables beside protected ones: is their want meant?", _POLICIES),
            _rule("row_security_not_forced", "notice", "Policies do not bind the owner of a table.", _POLICIES),
            _rule(
                "view_around_row_security",
                "warning",
                "Whoever may read the view sees what its owner sees.",
                manual("sql-createview.html"),
            ),
            _rule(
                "dangerous_extension",
                "warning",
                "It reaches files, pages or other servers.",
                manual("contrib.html"),
            ),
            _rule(
                "untrusted_extension",
                "notice",
                "Made by a superuser; see that it is still needed.",
                manual("contrib.html"),
            ),
            _rule("untrusted_language", "warning", "Its functions are not held in a sandbox.", manual("xplang.html")),
            _rule(
                "connections_not_logged",
                "notice",
                "An audit of access begins with who was there.",
                manual("runtime-config-logging.html#GUC-LOG-CONNECTIONS"),
            ),
        )
    )
)
_OF_CATALOG: Final = tuple(name for name in RULES if name not in (*_TRANSPORT, *_OF_HBA, *_OF_PASSWORDS))

_SESSION = """
    select coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false) as tls,
           (select version from pg_stat_ssl where pid = pg_backend_pid()) as version,
           inet_client_addr() is null or inet_client_addr() << inet '127.0.0.0/8'
               or inet_client_addr() = inet '::1' as local,
           host(inet_client_addr()) as client, current_setting('ssl')::boolean as offered,
           current_setting('listen_addresses') as listens
"""
_MD5 = "select format('%I', rolname) as role from pg_authid where rolcanlogin and rolpassword like 'md5%' order by 1"
_HBA_RULES = """
    select line_number, type, array_to_string(database, ',') as databases, array_to_string(user_name, ',') as roles,
           concat_ws(' ', address, netmask) as address, auth_method, error,
           type = 'local' or address in ('127.0.0.1', '::1', 'localhost', 'samehost') as local
    from pg_hba_file_rules order by line_number
"""
_GRANT_HBA = (
    "GRANT SELECT ON pg_hba_file_rules TO {user}; GRANT EXECUTE ON FUNCTION pg_hba_file_rules() TO {user}; "
    "by a superuser in this database"
)


def audit(connection: AutocommitConnection, *, database: str, now: datetime, production: bool) -> Audit:
    """The security of the connected database, whose connection is a ``collect.session``. Five statements, reading only.

    ``production`` makes some findings weigh more. Lock: ACCESS SHARE on the catalog.
    """
    auditing = Auditing(connection, RULES, production=production)
    user = quoted(connection.info.user)
    leave_out = {"leave_out": SCHEMA}
    inventory: dict[str, Any] = {"connection": None, "access": None}

    def transport() -> Iterable[Row]:
        (row,) = auditing.select(_SESSION)
        verify = connection.info.get_parameters().get("sslmode", "prefer")
        inventory["connection"] = {**row, "sslmode": verify}
        return of_transport(row, verify)

    def access() -> Iterable[Row]:
        inventory["access"] = [dict(row) for row in roles_of(auditing, "access")]
        return ()

    auditing.ask(_TRANSPORT, transport)
    auditing.ask(_OF_CATALOG, lambda: auditing.rows("audit_security", leave_out))
    auditing.ask(_OF_HBA, lambda: of_hba(auditing.select(_HBA_RULES)), grant=_GRANT_HBA.format(user=user))
    auditing.ask(_OF_PASSWORDS, lambda: _md5(auditing.select(_MD5)), grant="passwords are known to superusers alone")
    auditing.ask(("access",), access)
    return auditing.ended("security", database=database, now=now, inventory=inventory)


def of_transport(row: Row, verify: str) -> Iterable[Row]:
    """Whether a session that leaves this machine is encrypted and verified (``sslmode``), and can others be. Pure."""
    if not row["local"]:
        if not row["tls"]:
            yield _found(
                "tls_not_used",
                "connection",
                f"the session from {row['client']} is not encrypted",
                "sslmode=verify-full",
            )
        elif verify != "verify-full":
            evidence = f"{row['version']} with sslmode={verify}"
            yield _found("tls_not_verified", "connection", evidence, "sslmode=verify-full and sslrootcert in the URL")
    listens = {name.strip() for name in row["listens"].split(",")} - {"localhost", "127.0.0.1", "::1", ""}
    if listens and not row["offered"]:
        evidence = f"it listens on {', '.join(sorted(listens))}"
        mend = "ALTER SYSTEM SET ssl = on; -- with ssl_cert_file and ssl_key_file; then SELECT pg_reload_conf();"
        yield _found("tls_not_offered", "ssl", evidence, mend)


def of_hba(rows: Iterable[Row]) -> Iterable[Row]:
    """Lines of ``pg_hba.conf`` that let in whom they should not, or without TLS; each with a safe one. Pure."""
    for row in rows:
        place = f"pg_hba.conf:{row['line_number']}"
        if row["error"]:
            yield _found("hba_broken", place, row["error"], "mend the line; then SELECT pg_reload_conf();")
            continue
        words = [row["type"], row["databases"], row["roles"], row["address"], row["auth_method"]]
        line = " ".join(word for word in words if word)
        safe = " ".join(word for word in (*_safe_type(row), *words[1:4], "scram-sha-256") if word)
        if row["auth_method"] == "reject":
            continue
        if row["auth_method"] == "trust":
            yield _found("hba_trust" if row["local"] else "hba_trust_from_network", place, line, safe)
        elif row["auth_method"] == "password":
            yield _found("hba_clear_password", place, line, safe)
        elif row["auth_method"] == "md5":
            yield _found("hba_md5", place, line, safe)
        if row["type"] in ("host", "hostnossl", "hostnogssenc") and not row["local"]:
            yield _found("hba_without_tls", place, line, safe)


def _safe_type(row: Row) -> tuple[str]:
    return (row["type"] if row["local"] else "hostssl",)


def _md5(rows: Iterable[Row]) -> Iterable[Row]:
    for row in rows:
        mend = f"\\password {row['role']} -- in psql, with password_encryption = 'scram-sha-256'"
        yield _found("md5_password", row["role"], "its password is kept as MD5", mend)


def _found(rule: str, object: str, evidence: str, mend: str) -> Row:
    return {"rule": rule, "object": object, "evidence": evidence, "mend": mend}
