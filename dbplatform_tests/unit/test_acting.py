"""Who acts on the command line: the user of this machine, also where that user has no name."""

from __future__ import annotations

import os
import pwd

import pytest

from dbplatform.ledger.acting import current


@pytest.mark.parametrize("failure", [KeyError("uid not found"), OSError("No username set in the environment")])
def test_a_user_without_a_name_acts_by_number(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)

    def unknown(_: int) -> None:
        raise failure

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert (current().name, current().way) == (f"uid {os.getuid()}", "command line")
