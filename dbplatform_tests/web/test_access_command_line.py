"""``token``, ``audit`` and ``serve`` as they are typed."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from dbplatform.cli import main
from dbplatform.ledger.ledger import Ledger
from dbplatform.web.access import Access
from dbplatform.web.app import create_app
from dbplatform_tests.installation import free_port

Typed = Callable[..., Any]


@pytest.fixture
def typed(ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Typed:
    """Type a command with ``--json``; its document."""
    (tmp_path / "defs").mkdir()
    monkeypatch.setenv("DBPLATFORM_LEDGER_URL", ledger.target.url)

    def command(*arguments: str, exit_code: int = 0) -> Any:
        code = main.run(["-C", str(tmp_path), *arguments, "--json"])
        printed = capsys.readouterr()
        assert code == exit_code, printed.out + printed.err
        return json.loads(printed.out)

    return command


def test_a_token_is_made_shown_once_listed_and_revoked(typed: Typed, ledger: Ledger) -> None:
    planned = typed("token", "create", "grafana", "--expires", "30 days", "--dry-run")
    assert (planned["token"], planned["scope"], typed("token", "list")) == (None, "read", {"tokens": []})
    made = typed("token", "create", "grafana", "--expires", "30 days")
    assert re.fullmatch(r"dbp_[\w-]{43}", made["token"])
    app = create_app(ledger, Path("/nowhere"), access=Access(tokens=True))
    client = TestClient(app, headers={"authorization": f"Bearer {made['token']}"})
    assert client.get("/api/v1/databases").status_code == 200
    (listed,) = typed("token", "list")["tokens"]
    assert (listed["name"], listed["state"], made["token"] in json.dumps(listed)) == ("grafana", "valid", False)
    assert typed("token", "create", "grafana", exit_code=2)["error"]["kind"] == "name_taken"
    assert typed("token", "create", "a\nb", exit_code=2)["error"]["kind"] == "unusable_name"
    assert typed("token", "create", "b", "--expires", "500 days", exit_code=2)["error"]["kind"] == "lives_too_long"
    assert typed("token", "revoke", "grafana", "--dry-run")["state"] == "valid"
    assert client.get("/api/v1/databases").status_code == 200
    assert typed("token", "revoke", str(listed["id"]))["state"] == "revoked"
    assert client.get("/api/v1/databases").status_code == 401
    assert typed("token", "list") == {"tokens": []}
    assert [one["state"] for one in typed("token", "list", "--all")["tokens"]] == ["revoked"]
    assert typed("token", "revoke", "grafana", exit_code=2)["error"]["kind"] == "unknown_token"


def test_the_audit_log_has_acts_and_operations_with_who_and_from_where(typed: Typed, ledger: Ledger) -> None:
    typed("token", "create", "grafana")
    typed("alerts", "silence", "--reason", "a new disk")
    with ledger.operation("shop", "migrate", run_id="0a1b"):
        pass
    with ledger.operation("shop", "seed"):
        pass
    found = typed("audit", "list")["changes"]
    assert [(one["act"], one["way"], one["status"], one["run_id"]) for one in found] == [
        ("seed", "command line", "succeeded", None),
        ("migrate", "dagster", "succeeded", "0a1b"),
        ("silence", "command line", "done", None),
        ("create token", "command line", "done", None),
    ]
    assert all(one["actor"] and one["origin"] for one in found)
    assert [one["act"] for one in typed("audit", "list", "shop", "--limit", "1")["changes"]] == ["seed"]


def test_serve_asks_for_somebody_who_may_come_before_it_listens(
    typed: Typed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in (["--tokens"], ["--host", "192.0.2.1"]):
        assert main.run(["-C", str(tmp_path), "serve", *arguments, "--port", str(free_port())]) == 2
        said = capsys.readouterr().err
        assert "there is no valid token, and no proxy to trust" in said
        assert "dbplatform token create NAME" in said
