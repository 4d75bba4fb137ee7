"""No secret of a running platform is in a log, an answer, a report, a file or a table that it has written.

Everything that a day of work touches is looked through: what was printed, every answer of the service with a token and
without one, the files of the home, and each row of the ledger and of Dagster's own storage (events, metadata, ticks).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform.web.access import COOKIE
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.drills.serving import serving
from dbplatform_tests.installation import Installation, small_project
from dbplatform_tests.receiver import SECRET as CHANNEL
from dbplatform_tests.web.recorded_samples import put_alert

_DECLARATION = """
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
  migrations: {directory: migrations}
  backups: {logical: {schedule: "0 2 * * *"}}
  quality: [{table: public.orders, checks: [{not_null: note}]}]
  notify: [{url_env: SHOP_CHANNEL}]
"""
_MIGRATION = "create table orders (id int primary key, note text); insert into orders values (1, 'a'), (2, null);"
_WORK = (
    ("migrate", "apply", "shop"), ("backup", "create", "shop"), ("check", "shop"), ("metrics", "shop"),
    ("health", "shop"), ("advise", "list", "shop"), ("alerts", "test", "shop"), ("doctor", "shop"), ("list",),
    ("explain", "shop", "select * from orders"), ("connections", "shop"),
    ("--debug", "restore", "shop", "--backup", "x"),
)  # fmt: skip
_SHORT = (*_WORK[:3], ("alerts", "test", "shop"), _WORK[-1])


@dataclass
class Looked:
    """What was looked through, and in how many places."""

    hidden: tuple[str, ...]
    places: int = 0
    found: list[str] = field(default_factory=list)

    def through(self, where: str, content: str | bytes) -> None:
        """Look for every secret in it."""
        read = content if isinstance(content, bytes) else content.encode()
        self.places += 1
        self.found += [where for secret in self.hidden if secret.encode() in read]


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[tuple[Installation, str]]:
    """A project whose database is reached by a password; the password."""
    with small_project(tmp_path, _DECLARATION, _MIGRATION) as installation:
        installation.server.start()
        password = f"pw-{secrets.token_hex(16)}"
        installation.server.ensure_database("shop")
        with installation.connect("shop") as connection:
            kept = connection.pgconn.encrypt_password(password.encode(), b"shop_owner", b"scram-sha-256").decode()
            role = sql.Identifier("shop_owner")
            connection.execute(sql.SQL("create role {} login createdb password {}").format(role, sql.Literal(kept)))
            connection.execute(sql.SQL("grant all on schema public to {}").format(role))
            connection.execute(sql.SQL("grant create on database shop to {}").format(role))
        url = make_conninfo(installation.server.url("shop"), user="shop_owner", password=password)
        installation.variables.update(SHOP_URL=url, SHOP_CHANNEL=f"json://127.0.0.1:9/{CHANNEL}")
        yield installation, password


@pytest.mark.parametrize("how", cases("command line", "Dagster", sample={"command line"}))
def test_no_secret_is_in_anything_that_the_platform_writes(shop: tuple[Installation, str], how: str) -> None:
    installation, password = shop
    superuser = psycopg.conninfo.conninfo_to_dict(installation.server.url("shop"))["password"]
    assert isinstance(superuser, str)
    made = installation.here("token", "create", "ada", "--scope", "act")["token"]
    looked = Looked(hidden=(password, superuser, CHANNEL, made))
    for arguments in _SHORT if how == "command line" else (*_WORK, ("run", "shop")):
        result = installation.command(*arguments)
        looked.through(" ".join(arguments), result.stdout + result.stderr)
    _through_the_service(installation, made, looked)
    for file in installation.home.root.rglob("*"):
        if file.is_file() and "data" not in file.relative_to(installation.home.root).parts and file.name != "password":
            looked.through(str(file), file.read_bytes())
    for name in ("dbplatform_ledger", "shop", *(["dagster"] if how == "Dagster" else [])):
        _through_the_tables(installation, name, looked)
    assert looked.found == []
    assert looked.places > 60


def _through_the_service(installation: Installation, token: str, looked: Looked) -> None:
    ledger = Ledger(Target("ledger", installation.server.url("dbplatform_ledger")))
    alert = put_alert(ledger, "shop")
    ledger.engine.dispose()
    with serving(installation, "--tokens") as service:
        bearer = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=service.address, timeout=60) as client:
            paths = client.get("/api/v1/openapi.json", headers=bearer).json()["paths"]
            pages = ("/", "/login", "/reports/", "/reports/shop/", "/runbooks", "/nowhere", "/metrics")
            for path in (*(path.format_map(_Names()) for path in paths), *pages):
                nobody: list[dict[str, str]] = [{}] if path in pages else []  # refusals count against the rate
                for headers in (bearer, {"cookie": f"{COOKIE}={token}", "accept": "text/html"}, *nobody):
                    answer = client.get(path, headers=headers)
                    assert answer.status_code < 500, (path, answer.text)
                    looked.through(f"{path} {answer.status_code}", answer.text + str(answer.headers))
            for path, given in (
                (f"/api/v1/alerts/{alert}/acknowledgement", {}),
                ("/api/v1/silences", {"reason": "work"}),
                ("/api/v1/databases/shop/explain", {"sql": "select * from orders"}),
                ("/api/v1/databases/shop/explain", {"sql": "select nonsense"}),
            ):
                answer = client.post(path, json=given, headers=bearer)
                assert answer.status_code in (200, 201, 422), answer.text
                looked.through(path, answer.text)
            for report in client.get("/api/v1/reports", headers=bearer).json()["reports"]:
                looked.through(report["url"], client.get(report["url"], headers=bearer).text)
    looked.through("the log of serve", service.log.read_text())


class _Names(dict[str, str]):
    """A name for every part of a path."""

    def __missing__(self, key: str) -> str:
        return "shop" if key == "name" else "1"


def _through_the_tables(installation: Installation, database: str, looked: Looked) -> None:
    with installation.connect(database) as connection:
        tables = connection.execute(
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        ).fetchall()
        for schema, table in tables:
            rows = connection.execute(sql.SQL("select t::text from {} t").format(sql.Identifier(schema, table)))
            looked.through(f"{database}: {schema}.{table}", "\n".join(row[0] for row in rows))
