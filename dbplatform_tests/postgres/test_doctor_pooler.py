"""PgBouncer, a real one, between us and the server: found by doctor in every mode, with what it breaks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from shutil import which
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from dbplatform.declaration.project import Project
from dbplatform.operations.adoption.adopt import plan_adoption
from dbplatform.operations.adoption.errors import ThroughPooler
from dbplatform.postgres.connection import Target
from dbplatform.postgres.embedded.account import account_for
from dbplatform.postgres.embedded.processes import free_port
from dbplatform_tests.postgres.doctor_support import PASSWORD, Shop, opened
from dbplatform_tests.postgres.embedded_support import open_folder, wait_until

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)

CONFIGURATION = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
logfile = {folder}/log
pidfile = {folder}/pid
{more}
"""

Pooled = Callable[[str], None]


@pytest.fixture
def shop(second_server: SecondServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    with opened(second_server, tmp_path, monkeypatch) as shop:
        yield shop


@pytest.fixture
def pooled(shop: Shop) -> Iterator[Pooled]:
    """Put a PgBouncer with these settings before the shop; the URL is its."""
    program = which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")
    assert program is not None, "there is no PgBouncer: see dbplatform_tests/debian.sh"
    with open_folder() as folder:
        account = account_for(folder)
        account.own(folder)

        def start(more: str) -> None:
            port = free_port()
            words = {"server": shop.server.port, "port": port, "folder": folder, "more": more}
            (folder / "ini").write_text(CONFIGURATION.format(**words))
            (folder / "users").write_text(f'"{shop.name}" "{PASSWORD}"\n')
            started = account.run([program, "--daemon", "--quiet", folder / "ini"], new_session=True)
            assert started.returncode == 0, started.stderr
            url = make_conninfo(shop.server.url(shop.name, user=shop.name, password=PASSWORD), port=port)
            shop.log_in(url=url)
            wait_until(lambda: answers(url))

        yield start
        pid = int((folder / "pid").read_text())
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: not (folder / "pid").exists())


def answers(url: str) -> bool:
    try:
        psycopg.connect(url).close()
    except psycopg.OperationalError:
        return False
    return True


@pytest.mark.parametrize(
    "settings",
    [
        "pool_mode = transaction",
        "pool_mode = transaction\ndefault_pool_size = 1",
        "pool_mode = transaction\nserver_round_robin = 1",
        "pool_mode = transaction\nmin_pool_size = 4\nserver_round_robin = 1",
        "pool_mode = statement",
    ],
)
def test_a_pooler_that_splits_sessions_is_an_error(shop: Shop, pooled: Pooled, settings: str) -> None:
    pooled(settings)
    finding = shop.examined()["pooler"]
    assert finding.status == "error"
    assert "session advisory locks, LISTEN and settings are lost" in finding.message
    assert f"The pooler finds it at 127.0.0.1, port {shop.server.port}." in (finding.mend or "")


def test_a_pooler_that_keeps_sessions_together_is_a_warning(shop: Shop, pooled: Pooled) -> None:
    pooled("pool_mode = session")
    finding = shop.examined()["pooler"]
    assert finding.status == "warn"
    assert "in session mode" in finding.message


def test_a_pooler_with_one_session_only_is_an_error_and_does_not_keep_us_waiting(shop: Shop, pooled: Pooled) -> None:
    pooled("pool_mode = session\ndefault_pool_size = 1")
    found = shop.examined()
    assert found["pooler"].status == "error"
    assert "no second session" in found["pooler"].message
    assert found["version"].status == "ok"


def test_looking_through_a_pooler_changes_no_session_of_others(shop: Shop, pooled: Pooled) -> None:
    pooled("pool_mode = transaction\ndefault_pool_size = 1")
    url = os.environ["SHOP_URL"]
    query = "select setting from pg_settings where name in ('statement_timeout', 'lock_timeout', 'search_path')"
    with psycopg.connect(url) as before:
        settings = before.execute(query).fetchall()
    shop.examined()
    with psycopg.connect(url) as after:
        assert after.execute(query).fetchall() == settings


def test_a_setting_that_the_pooler_refuses_is_told(shop: Shop, pooled: Pooled) -> None:
    pooled("pool_mode = session")
    shop.log_in(url=make_conninfo(os.environ["SHOP_URL"], options="-c search_path=shop"))
    finding = shop.examined()["server"]
    assert finding.status == "error"
    assert "unsupported startup parameter" in finding.message


@pytest.mark.parametrize("settings", ["pool_mode = transaction\ndefault_pool_size = 1", "pool_mode = statement"])
def test_nothing_is_adopted_through_a_pooler_whose_sessions_others_get_next(
    shop: Shop, pooled: Pooled, settings: str
) -> None:
    pooled(settings)
    target = Target("other", os.environ["SHOP_URL"])
    with pytest.raises(ThroughPooler, match="gives each transaction another session"):
        plan_adoption(Project.at(shop.folder), target, name="other", url_env="SHOP_URL", environment="production")
    with psycopg.connect(target.url, autocommit=True) as application:
        asked = "select current_setting('transaction_read_only'), current_setting('statement_timeout')"
        assert application.execute(asked).fetchone() == ("off", "0")
