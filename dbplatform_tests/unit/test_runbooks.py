"""Every alert has a page that says what to do, and every message links to one that exists."""

from __future__ import annotations

import pytest

from dbplatform.monitoring.metrics import KINDS
from dbplatform.operations import heartbeats
from dbplatform.operations.runbooks import NoRunbook, address, runbook, runbooks


@pytest.mark.parametrize(
    "key",
    [
        *KINDS,
        "reachable",
        "wal_archive",
        "unmeasured",
        "check:public.item.not_null_name",
        "run:shop_migrate",
        "run:materialize tables/item",
        "stuck:shop_migrate",
        "asset_check:migrations:drift",
        "schedule:shop_daily",
        "watch:shop",
        *(heartbeats.HEARTBEAT + name for name in (heartbeats.WATCH, heartbeats.QUEUE, heartbeats.SERVICE)),
        "ledger",
    ],
)
def test_every_alert_leads_to_a_page_that_says_what_to_do(key: str) -> None:
    page = runbook(key)
    assert address(key).endswith(f"/runbooks#{page.name}")
    assert len(page.meaning) > 20
    assert len(page.advice) > 20


def test_an_unknown_name_is_refused_with_the_way_to_the_names() -> None:
    with pytest.raises(NoRunbook) as refused:
        runbook("no_such_metric")
    assert "dbplatform alerts runbook" in (refused.value.hint or "")
    assert "no_such_metric" not in runbooks()
