"""The platform's own ledger, declared as a database like another: backed up, and proven by a restore."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.home import Home
from dbplatform.ledger.ledger import Ledger
from dbplatform_tests.installation import Installation

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: ledger
  connection: {url_env: DBPLATFORM_LEDGER_URL}
  backups: {}
"""


@pytest.mark.drill
def test_the_ledger_is_backed_up_and_proven_as_any_database_is(tmp_path: Path, ledger: Ledger) -> None:
    file = tmp_path / "defs" / "ledger" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_DECLARATION)
    here = Installation(
        Home(root=tmp_path / "home"), folder=tmp_path, variables={"DBPLATFORM_LEDGER_URL": ledger.target.url}
    )
    try:
        here.json("backup", "create", "ledger")
        drill = here.json("drill", "ledger")
    finally:
        here.server.remove()
    assert drill["proven"] is True
    tables = {table["table"]: table["match"] for table in drill["tables"]}
    assert tables["ledger.operation"] is True
    assert set(tables.values()) == {True}
