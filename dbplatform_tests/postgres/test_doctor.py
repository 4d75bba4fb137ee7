"""``dbplatform doctor`` on a real server that refuses us in every way, and on one that does not.

One module, because the order of the stages of a connection is claimed over all of them.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.declaration.project import Project
from dbplatform.ledger.ledger import Ledger
from dbplatform.operations.diagnosis.examine import PROBES, examine
from dbplatform.operations.diagnosis.readers import readers
from dbplatform.operations.platform import Platform
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.processes import free_port
from dbplatform.postgres.refusals import explain
from dbplatform_tests.postgres.doctor_support import DECLARATION, PASSWORD, Shop, opened, problems
from dbplatform_tests.postgres.embedded_support import wait_until

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

STAGES = ["URL", "host", "port", "server", "login", "database"]


@pytest.fixture
def shop(second_server: SecondServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with opened(second_server, tmp_path, monkeypatch) as shop:
        yield shop


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody on this machine comes to; pytest's own are closed."""
    with tempfile.TemporaryDirectory(prefix="backups-", dir="/var/tmp") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_a_database_that_is_well_gives_no_error_and_nothing_is_made(shop: Shop) -> None:
    found = shop.examined()
    assert "error" not in problems(found).values()
    assert found["version"].message.startswith("PostgreSQL 15.")
    assert found["pooler"].message == "none: this is the server itself"
    assert [found[stage].status for stage in STAGES] == ["ok"] * 6
    assert not (shop.folder / "home").exists()
    with psycopg.connect(shop.server.superuser_url(shop.name)) as session:
        assert session.execute("select count(*) from pg_namespace where nspname = 'dbplatform'").fetchone() == (0,)
        assert session.execute("select count(*) from pg_class where relname ~ '^flyway'").fetchone() == (0,)


def nobody(shop: Shop) -> str:
    return shop.server.url(shop.name, user=shop.name, password="wrong-one")


REFUSED = {
    "wrong password": (nobody, "login", "wrong user or password: password authentication failed for user"),
    "no password": (
        lambda shop: f"host=127.0.0.1 port={shop.server.port} user={shop.name} dbname={shop.name}",
        "login",
        "the server asks for a password, and the URL holds none",
    ),
    "no such database": (
        lambda shop: shop.server.url("nosuch", user=shop.name, password="hunter2"),
        "database",
        'database "nosuch" does not exist',
    ),
    "no such host": (
        lambda shop: make_conninfo(shop.server.url(shop.name), host="nosuch.invalid"),
        "host",
        'the host name "nosuch.invalid" is not known',
    ),
    "nobody listens": (
        lambda shop: make_conninfo(shop.server.url(shop.name), port=free_port()),
        "port",
        "nothing listens on 127.0.0.1, port",
    ),
    "no socket": (
        lambda shop: make_conninfo(shop.server.url(shop.name), host="/nonexistent"),
        "port",
        "there is no socket of a server at /nonexistent/.s.PGSQL",
    ),
    "no TLS": (
        lambda shop: make_conninfo(shop.server.url(shop.name), sslmode="require"),
        "TLS",
        "the server has no TLS, and the URL asks for it",
    ),
    "an @ in the password": (
        lambda shop: "postgresql://app:hunter2@hunter2@127.0.0.1/shop",
        "URL",
        "the URL cannot be read",
    ),
    "a slash in the password": (
        lambda shop: "postgresql://app:hun/hunter2@127.0.0.1/shop",
        "URL",
        "the URL cannot be read",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_connection_is_one_sentence_for_doctor_and_for_every_other_verb(
    shop: Shop, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    url, stage, sentence = REFUSED[case]
    shop.log_in(url=url(shop))

    found = shop.examined()

    assert sentence in found[stage].message
    assert found[stage].mend
    assert found[stage].status == "error"
    reached = STAGES[: STAGES.index(stage)] if stage in STAGES else STAGES[:3]
    assert [found[one].status for one in reached] == ["ok"] * len(reached)
    assert {found[probe].status for probe in PROBES if probe != stage} == {"not_checked"}
    assert shop.typed("migrate", "apply", "shop") == 3
    said = capsys.readouterr().err
    assert found[stage].message in said
    assert "hunter2" not in said


def test_a_backup_says_of_a_wrong_password_what_doctor_said_beforehand(
    shop: Shop, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    shop.log_in(url=nobody(shop))
    beforehand = shop.examined()["login"]
    assert shop.typed("backup", "create", "shop") == 3
    assert f"error: {beforehand.message}\n  {beforehand.mend}\n" in capsys.readouterr().err


LIMITED = {
    "alter role {shop} connection limit 0": ("login", "too many connections for role"),
    "alter role {shop} nologin": ("login", "is not permitted to log in"),
    "alter database {shop} connection limit 0": ("database", "too many connections for database"),
    "alter database {shop} allow_connections false": ("database", "is not currently accepting connections"),
    "revoke connect on database {shop} from public, {shop}": ("database", "permission denied for database"),
}


@pytest.mark.parametrize("statement", LIMITED)
def test_what_the_server_limits_is_told_with_its_mend(shop: Shop, statement: str) -> None:
    stage, sentence = LIMITED[statement]
    shop.run(statement, database="postgres")
    finding = shop.examined()[stage]
    assert finding.status == "error"
    assert sentence in finding.message
    assert finding.mend is not None


def test_a_missing_line_of_pg_hba_is_told(shop: Shop) -> None:
    file = shop.server.data_directory / "pg_hba.conf"
    before = file.read_text()
    try:
        file.write_text("host all postgres 127.0.0.1/32 scram-sha-256\n")
        shop.run("select pg_reload_conf()", database="postgres")
        wait_until(lambda: shop.examined()["login"].status == "error")
        finding = shop.examined()["login"]
    finally:
        file.write_text(before)
        shop.run("select pg_reload_conf()", database="postgres")
    assert 'no pg_hba.conf entry for host "127.0.0.1"' in finding.message
    assert finding.mend is not None
    assert "pg_reload_conf" in finding.mend
    wait_until(lambda: shop.examined()["login"].status == "ok")


def test_what_is_not_postgresql_is_told(shop: Shop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening, ThreadPoolExecutor(1) as pool:

        def answer() -> None:
            caller, _ = listening.accept()
            with caller:
                caller.recv(100)
                caller.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        answered = pool.submit(answer)
        port = listening.getsockname()[1]
        shop.log_in(url=make_conninfo(shop.server.url(shop.name), port=port))
        finding = shop.examined()["port"]
        answered.result()
    assert finding.message.endswith(f"what listens on 127.0.0.1, port {port} is not PostgreSQL.")


SAID = {
    'connection to server at "db" (10.0.0.7), port 5432 failed: FATAL:  the database system is starting up': (
        "server",
        "the database system is starting up",
    ),
    'connection to server at "db" (10.0.0.7), port 5432 failed: FATAL:  sorry, too many clients already': (
        "server",
        "sorry, too many clients already",
    ),
    'connection to server at "db" (10.0.0.7), port 5432 failed: FATAL:  remaining connection slots are reserved for '
    "roles with the SUPERUSER attribute": (
        "server",
        "remaining connection slots are reserved for roles with the SUPERUSER attribute",
    ),
    "connection timeout expired": ("port", "db, port 5432 does not answer"),
    'connection to server at "db" (10.0.0.7), port 5432 failed: No route to host': (
        "port",
        "db, port 5432 cannot be reached: No route to host",
    ),
    'connection to server at "db" (10.0.0.7), port 5432 failed: server certificate for "other" does not match host '
    'name "db"': ("TLS", 'server certificate for "other" does not match host name "db"'),
    'connection to server at "db" (10.0.0.7), port 5432 failed: FATAL:  no such database: shop': (
        "database",
        "no such database: shop",
    ),
    'connection to server at "db" (10.0.0.7), port 5432 failed: FATAL:  unsupported startup parameter: options': (
        "server",
        "a connection pooler refuses a setting of the URL: unsupported startup parameter: options",
    ),
    'connection to server at "db" (10.0.0.7), port 5432 failed: FATAL:  Passwort-Authentifizierung fehlgeschlagen': (
        "server",
        "Passwort-Authentifizierung fehlgeschlagen",
    ),
}


@pytest.mark.parametrize("said", SAID)
def test_what_libpq_says_becomes_a_stage_and_a_sentence(said: str) -> None:
    refusal = explain(psycopg.OperationalError(f"connection failed: {said}"), host="db", port="5432")
    assert (refusal.stage, refusal.reason) == SAID[said]
    assert refusal.hint.endswith((".", ";"))


def test_a_variable_that_is_not_set_is_told_with_file_and_line(shop: Shop) -> None:
    shop.patch.delenv("SHOP_URL")
    found = shop.examined()
    assert found["URL"].status == "error"
    assert "SHOP_URL" in found["URL"].message
    assert (found["URL"].file, found["URL"].line) == ("defs/shop/defs.yaml", 4)
    assert {found[probe].status for probe in PROBES} == {"not_checked"}
    assert found["backup folder"].status == "ok"


def test_a_receiver_of_alerts_whose_variable_is_not_set_is_told_with_its_line(shop: Shop) -> None:
    shop.declare(DECLARATION + "  notify:\n    - {url_env: CHAT_URL}\n    - {url_env: PAGER_URL}\n")
    shop.patch.setenv("CHAT_URL", "json://127.0.0.1:1/")
    shop.patch.delenv("PAGER_URL", raising=False)
    found = examine(Platform(Project.at(shop.folder)), "shop")
    told = [(one.status, one.line) for one in found if one.probe == "notify"]
    assert told == [("error", 15), ("ok", None)]


def test_production_asks_for_a_verified_connection(shop: Shop, certified: Path) -> None:
    shop.declare(DECLARATION, environment="production")
    url = shop.server.url(shop.name, user=shop.name, password=PASSWORD)
    judged = {}
    for words in ("sslmode=disable", "sslmode=require", f"sslmode=verify-full sslrootcert={certified}"):
        shop.log_in(url=make_conninfo(url, **dict(word.split("=") for word in words.split())))
        judged[words.split()[0]] = shop.examined()["TLS"].status
    shop.log_in(url=make_conninfo(url, sslmode="verify-full", sslrootcert=str(certified), host="localhost"))
    other = shop.examined()["TLS"]
    assert judged == {"sslmode=disable": "error", "sslmode=require": "error", "sslmode=verify-full": "ok"}
    assert (other.status, "does not match host name" in other.message) == ("error", True)


@pytest.fixture
def certified(shop: Shop, tmp_path: Path) -> Iterator[Path]:
    """The second server with TLS, and the file of its certificate, which is for 127.0.0.1 alone."""
    data = shop.server.data_directory
    key, certificate, copy = data / "server.key", data / "server.crt", tmp_path / "authority.crt"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    copy.write_bytes(certificate.read_bytes())
    owner = data.stat()
    for file in (key, certificate):
        file.chmod(0o600)
        os.chown(file, owner.st_uid, owner.st_gid)
    try:
        shop.run("alter system set ssl = on", database="postgres")
        shop.run("select pg_reload_conf()", database="postgres")
        wait_until(lambda: "certificate is not verified" in shop.examined()["TLS"].message)
        yield copy
    finally:
        shop.run("alter system reset ssl", database="postgres")
        shop.run("select pg_reload_conf()", database="postgres")
        shop.log_in()
        wait_until(lambda: "not encrypted" in shop.examined()["TLS"].message)


@pytest.mark.parametrize(("apart_s", "status"), [(0, "ok"), (10, "warn"), (-10, "warn"), (90, "error"), (-90, "error")])
def test_a_clock_that_is_apart_is_told(shop: Shop, apart_s: int, status: str) -> None:
    finding = shop.examined(now=lambda: datetime.now(UTC) - timedelta(seconds=apart_s))["clock"]
    assert finding.status == status
    if apart_s:
        assert ("ahead of" if apart_s > 0 else "behind") in finding.message


def test_an_older_pg_dump_is_told_beforehand_as_the_backup_tells_it(
    shop: Shop, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """PostgreSQL 15's programs against the embedded server, which is newer."""
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setattr("dbplatform.backups.programs._DEBIAN", shop.folder / "no-packages")
    monkeypatch.setenv("DBPLATFORM_PG_BIN", str(shop.server.bin_dir))
    monkeypatch.setenv("PATH", str(shop.folder))
    shop.log_in(url=database.url)

    found = shop.examined()

    assert found["pg_dump"].status == "error"
    assert found["pg_dump"].message.startswith("No pg_dump of PostgreSQL 17 or newer was found; there is 15.")
    assert "DBPLATFORM_PG_BIN" in (found["pg_dump"].mend or "")
    assert found["proof"].status == "error"
    assert shop.typed("backup", "create", "shop") == 3
    assert found["pg_dump"].message in capsys.readouterr().err


def test_the_programs_of_the_platform_dump_an_older_server(shop: Shop) -> None:
    found = shop.examined()
    assert [found[probe].status for probe in ("pg_dump", "pg_restore", "proof")] == ["ok"] * 3


def test_an_extension_that_the_scratch_server_lacks_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.run("create extension citext")
    assert shop.examined()["proof"].status == "ok"
    monkeypatch.setattr(
        "dbplatform.operations.diagnosis.programs.extensions_of", lambda programs: {"plpgsql", "hstore"}
    )
    finding = shop.examined()["proof"]
    assert (finding.status, "lacks the extension citext" in finding.message) == ("error", True)


def test_the_declared_scratch_server_is_asked_itself(
    shop: Shop, server_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.declare(DECLARATION.replace("url_env: SHOP_URL", "url_env: SHOP_URL, scratch_url_env: SCRATCH_URL"))
    told = {
        shop.server.superuser_url(): ("ok", "drills and rehearsals work"),
        server_url: ("error", "The scratch server runs PostgreSQL 17, the database PostgreSQL 15"),
        shop.server.url(shop.name, user=shop.name, password=PASSWORD): ("error", "may not create databases"),
        "postgresql://nobody@127.0.0.1:1/nowhere": ("error", "cannot be reached"),
    }
    for url, (status, words) in told.items():
        monkeypatch.setenv("SCRATCH_URL", url)
        finding = shop.examined()["proof"]
        assert (finding.status, words in finding.message) == (status, True), finding.message


def test_a_folder_that_cannot_be_made_is_told(shop: Shop) -> None:
    (shop.folder / "file").write_text("")
    shop.declare(DECLARATION.replace("backups: {}", "backups: {destination: file/backups}"))
    found = shop.examined()
    assert found["backup folder"].status == "error"
    assert f"{shop.folder}/file is a file" in found["backup folder"].message
    assert found["room for backup"].status == "not_checked"


def test_who_may_read_the_backups_is_told_by_the_rights_of_their_folder(shop: Shop, open_folder: Path) -> None:
    shop.declare(DECLARATION.replace("backups: {}", f"backups: {{destination: {open_folder}, physical: {{}}}}"))
    assert "nothing is there yet" in shop.examined()["readers of backups"].message
    group = open_folder.group()
    for name in ("shop", "server-7"):
        probe = "readers of backups" if name == "shop" else "readers of server-7"
        kept = open_folder / name / "20261122T020000Z-1"
        kept.mkdir(parents=True)
        for file in ("toc.dat", "manifest.json"):
            (kept / file).write_text("x")
        for modes, status, words in (
            ((0o700, 0o755, 0o644), "ok", " alone reads "),
            ((0o755, 0o700, 0o644), "ok", " alone reads "),
            ((0o750, 0o750, 0o640), "ok", f" and the group {group} read "),
            ((0o705, 0o705, 0o604), "warn", "Everybody on this machine can read backups in "),
        ):
            for path, mode in zip((kept.parent, kept, kept / "toc.dat"), modes, strict=True):
                path.chmod(mode)
            found = shop.examined()[probe]
            assert (found.status, words in found.message) == (status, True), found.message
            assert "not encrypted" in found.message
        assert found.mend == f"chmod -R go-rwx '{open_folder / name}'"


def test_whoever_may_read_encrypted_backups_has_no_content_and_their_keys_are_told(
    shop: Shop, open_folder: Path
) -> None:
    key = "age1qh4czflf4v7d2vrzqclzqtfejtyzve6c099ujzsspkd3uyc5ruvqnywqjq"
    shop.declare(DECLARATION.replace("backups: {}", f"backups: {{destination: {open_folder}, encrypt_to: [{key}]}}"))
    kept = open_folder / "shop" / "20261122T020000Z-1"
    kept.mkdir(parents=True)
    kept.chmod(0o755)
    for name in ("toc.dat.age", "manifest.json"):
        (kept / name).write_text("x")
        (kept / name).chmod(0o644)
    found = shop.examined()["readers of backups"]
    assert (found.status, key in found.message) == ("ok", True), found.message
    (kept / "toc.dat").write_text("one of before it was encrypted")
    (kept / "toc.dat").chmod(0o644)
    assert shop.examined()["readers of backups"].status == "warn"


def test_who_may_read_a_bucket_is_not_claimed_to_be_known(shop: Shop) -> None:
    shop.declare(DECLARATION.replace("backups: {}", "backups: {destination: s3://nosuch/backups}"))
    platform = Platform(Project.at(shop.folder))
    [found] = readers(platform, platform.declarations.get("shop"))
    assert found.status == "not_checked"
    assert "who may read s3://nosuch/backups is known to its provider alone; not encrypted" in found.message


def test_a_disk_without_room_for_a_backup_is_told(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dbplatform.operations.diagnosis.surroundings._free", lambda folder: 1000)
    assert shop.examined()["room for backup"].status == "error"


def test_the_command_prints_findings_with_their_mend_and_ends_with_1_on_an_error(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shop.typed("doctor", "shop") == 0
    assert "verdict: " in capsys.readouterr().out
    shop.log_in(url=nobody(shop))
    assert shop.typed("doctor", "shop", "--json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [one["probe"] for one in findings if one["status"] == "error"] == ["login"]
    assert {one["database"] for one in findings} == {"shop"}
    assert shop.typed("doctor", "shop") == 1
    said = capsys.readouterr().out
    assert "mend: Check user and password" in said
    assert "1 error" in said.splitlines()[-1]
    assert shop.typed("doctor", "nosuch") == 2


def test_without_a_name_the_surroundings_and_broken_declarations_are_told(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shop.folder / "defs" / "broken" / "defs.yaml"
    broken.parent.mkdir()
    broken.write_text("type: dbplatform.ManagedDatabase\nattributes:\n  name: broken\n  nosuch: 1\n")
    assert shop.typed("doctor", "--json") == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    around = {one["probe"]: one for one in findings if one["database"] is None and one["status"] != "error"}
    around_all = {"Python", "declarations", "home", "machines", "server programs", "embedded server", "ledger"}
    assert around.keys() == around_all
    assert around["embedded server"]["message"] == "server stopped"
    [mistake] = [one for one in findings if one["status"] == "error"]
    assert (mistake["file"], mistake["line"]) == ("defs/broken/defs.yaml", 4)
    assert [one["status"] for one in findings if one["probe"] == "version"] == ["ok"]
    assert not (shop.folder / "home").exists()


def test_a_database_of_the_stopped_embedded_server_is_not_checked_and_nothing_is_started(shop: Shop) -> None:
    shop.declare(DECLARATION.replace("url_env: SHOP_URL, ", ""))
    found = shop.examined()
    assert found["embedded server"].message.startswith("server stopped")
    assert {found[probe].status for probe in PROBES} == {"not_checked"}
    assert not (shop.folder / "home").exists()


def test_a_ledger_elsewhere_must_answer_and_let_us_write(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def found(url: str) -> tuple[str, str]:
        monkeypatch.setenv("DBPLATFORM_LEDGER_URL", url)
        [finding] = [one for one in examine(Platform(Project.at(shop.folder))) if one.probe == "ledger"]
        return finding.status, finding.message

    assert found(shop.server.url(shop.name, user=shop.name, password=PASSWORD))[0] == "ok"
    status, message = found(nobody(shop))
    assert (status, "wrong user or password" in message) == ("error", True)
    status, message = found(shop.server.url("postgres", user=shop.name, password=PASSWORD))
    assert (status, "may not create the ledger's tables" in message) == ("error", True)
