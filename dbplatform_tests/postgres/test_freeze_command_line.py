"""Commands in a freeze: what changes the database asks, what looks goes on, and everybody can see why."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
import pytest

from dbplatform.cli.main import VERBS, dbplatform
from dbplatform.ledger.ledger import Ledger
from dbplatform.postgres.connection import Target
from dbplatform_tests.typed import Type, typist

_SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {{url_env: SHOP_URL}}
  time_zone: Europe/Vienna
  migrations: {{}}
  freeze: [{{from: "{begins:%Y-%m-%d %H:%M}", to: "{ends:%Y-%m-%d %H:%M}", reason: "year end"}}]
"""
#: Verbs with --dry-run that change nothing in a declared database: ledger, backups, files, runs, scratch databases.
_HARMLESS = {
    "adopt", "advise dismiss", "alerts ack", "alerts close", "alerts silence", "alerts test", "alerts unsilence",
    "archive expire", "backup create", "backup prune", "backup restore-point", "bench compare", "bench run",
    "check", "drill", "init", "report prune", "report review", "roles review",
    "runs cancel", "runs free", "server remove", "server start", "server stop", "token create",
    "token revoke", "wal receive",
}  # fmt: skip


@pytest.fixture
def shop(tmp_path: Path, database: Target, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose database is frozen for an hour yet, and has a migration to apply."""
    migrations = tmp_path / "defs" / "shop" / "migrations"
    migrations.mkdir(parents=True)
    now = datetime.now(UTC).astimezone()
    (migrations.parent / "defs.yaml").write_text(
        _SHOP.format(begins=now - timedelta(days=1), ends=now + timedelta(days=1))
    )
    (migrations / "V1__item.sql").write_text("create table item (id int);")
    monkeypatch.setenv("SHOP_URL", database.url)
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)
    monkeypatch.setenv("DBPLATFORM_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def type_(shop: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    return typist(shop, capsys)


def test_a_command_that_would_change_a_frozen_database_asks(type_: Type) -> None:
    refused = type_("migrate", "apply", "shop", "--json")
    assert refused.code == 2
    error = refused.json["error"]
    assert (error["kind"], "year end" in error["message"]) == ("frozen", True)
    assert error["message"].startswith("shop is frozen until ")
    assert "--during-freeze" in error["hint"]
    looked = type_("migrate", "apply", "shop", "--dry-run", "--json")
    assert (looked.code, [m["status"] for m in looked.json["migrations"]]) == (0, ["pending"])

    applied = type_("migrate", "apply", "shop", "--during-freeze", "--json")
    assert (applied.code, [m["status"] for m in applied.json["migrations"]]) == (0, ["applied"])
    assert type_("migrate", "apply", "shop").code == 0, "with nothing to change nobody is asked"


def test_list_and_health_show_the_freeze(type_: Type) -> None:
    [state] = type_("list", "--json").json["databases"]
    assert state["freeze"]["reason"] == "year end"
    assert "until" in type_("list").out
    document = type_("health", "shop", "--json").json
    assert document["freeze"] == state["freeze"]
    assert "shop is frozen until" in type_("health", "shop").out


def commands() -> Iterator[tuple[str, click.Command]]:
    root = click.Context(dbplatform, info_name="dbplatform")
    for verb in VERBS:
        command = dbplatform.get_command(root, verb)
        assert command is not None
        if isinstance(command, click.Group):
            yield from ((f"{verb} {name}", sub) for name, sub in command.commands.items())
        else:
            yield verb, command


def test_every_command_that_changes_a_database_asks_in_a_freeze() -> None:
    options = {name: {option for one in command.params for option in one.opts} for name, command in commands()}
    changing = {name for name, found in options.items() if "--dry-run" in found} - _HARMLESS
    assert {name for name in changing if "--during-freeze" not in options[name]} == set()
    assert {"migrate apply", "seed apply", "run", "restore", "advise apply"} <= changing
