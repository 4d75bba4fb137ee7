"""Every alert that fires is a failed check of the asset ``alerts``, whatever it is about."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from dbplatform.alerting.record import AlertRecord
from dbplatform.declaration.project import Project
from dbplatform.operations.alerts import Watched
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.watch import check_states

_SHOP = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  connection: {url_env: SHOP_URL}
"""


def firing(key: str) -> AlertRecord:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    about = {"advice": "", "preceded_by": "", "runbook": "", "limit": "", "cause": f"{key} is bad", "labels": {}}
    return AlertRecord(
        id=1,
        database="shop",
        key=key,
        metric=key,
        state="firing",
        severity="critical",
        since=now,
        fired_at=now,
        resolved_at=None,
        acknowledged_by=None,
        acknowledged_at=None,
        value=None,
        silenced_until=None,
        **about,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("key", "check"),
    [
        ("schedule:shop_daily", "others"),
        ("asset_check:migrations:drift", "others"),
        ("no_longer_known", "others"),
        ("run:shop_migrate", "runs"),
        ("unmeasured", "unmeasured"),
    ],
)
def test_each_alert_that_fires_fails_one_check(tmp_path: Path, key: str, check: str) -> None:
    file = tmp_path / "defs" / "shop" / "defs.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(_SHOP)
    platform = Platform(Project.at(tmp_path))
    about = {"metrics": None, "judgements": None, "problem": None}
    looked = Watched(database="shop", there=True, alerts=(firing(key),), **about)
    states = check_states(platform, platform.declarations.get("shop"), looked)
    assert [name for name in states if not states[name].passed] == [check]
    assert states[check].words == f"{key} is bad"
