"""``/metrics``, read by a strict parser of OpenMetrics 1.0: names, units, escapes, the end; and how many series."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from dbplatform.ledger.ledger import Ledger
from dbplatform.monitoring.metrics import KINDS
from dbplatform.operations import heartbeats
from dbplatform.web.app import create_app
from dbplatform.web.cache import Cache
from dbplatform.web.location import Location
from dbplatform_tests.web.recorded_samples import measured, put_alert

_NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
_ESCAPED = r'(?:[^\\"\n]|\\[\\n"])*'
_META = re.compile(rf"# (TYPE|UNIT|HELP) ({_NAME}) (.+)")
_SAMPLE = re.compile(rf'({_NAME})(?:\{{((?:{_NAME}="{_ESCAPED}",?)*)\}})? (-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?)')
_LABEL = re.compile(rf'({_NAME})="({_ESCAPED})"')
#: A gauge's name may not end like the samples of another type.
_RESERVED = ("_total", "_created", "_count", "_sum", "_bucket", "_info", "_gcount", "_gsum")


@dataclass
class Family:
    """One metric family, as the text has it."""

    name: str
    meta: dict[str, str] = field(default_factory=dict)
    samples: dict[tuple[tuple[str, str], ...], float] = field(default_factory=dict)


def parsed(text: str) -> dict[str, Family]:
    """The families of a text. Raises AssertionError where it is not OpenMetrics."""
    lines = text.split("\n")
    assert lines[-2:] == ["# EOF", ""], "it ends by # EOF and a line feed"
    families: dict[str, Family] = {}
    current: Family | None = None
    for line in lines[:-2]:
        if meta := _META.fullmatch(line):
            kind, name, rest = meta.groups()
            if current is None or current.name != name:
                assert name not in families, f"{name} is not in one piece"
                current = families[name] = Family(name)
            assert kind not in current.meta, f"{kind} of {name} stands twice"
            assert not current.samples, f"{kind} of {name} stands behind its samples"
            assert re.fullmatch(_ESCAPED, rest), rest
            current.meta[kind] = rest
            continue
        sample = _SAMPLE.fullmatch(line)
        assert sample, f"no line of OpenMetrics: {line!r}"
        name, written, value = sample.groups()
        assert current is not None, f"{name} has no family"
        assert name == current.name, f"{name} is not in its family"
        labels = tuple(sorted(_LABEL.findall(written or "")))
        assert len(dict(labels)) == len(labels), line
        assert labels not in current.samples, f"{line} stands twice"
        current.samples[labels] = float(value)
    for family in families.values():
        assert family.meta["TYPE"] == "gauge"
        assert family.meta["HELP"]
        assert not family.name.endswith(_RESERVED), family.name
        if unit := family.meta.get("UNIT"):
            assert family.name.endswith(f"_{unit}"), family.name
    return families


def scraped(ledger: Ledger, *names: str) -> dict[str, Family]:
    app = create_app(ledger, Path("/nowhere"), location=Location(names=names), cache=Cache(seconds=0))
    answer = TestClient(app).get("/metrics")
    assert answer.headers["content-type"] == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    return parsed(answer.text)


def test_the_parser_refuses_what_is_not_openmetrics() -> None:
    good = "# TYPE a_seconds gauge\n# UNIT a_seconds seconds\n# HELP a_seconds x\na_seconds 1\n# EOF\n"
    assert parsed(good)["a_seconds"].samples == {(): 1.0}
    for bad in (
        good.removesuffix("\n"), good.replace("# EOF\n", ""), good.replace("a_seconds 1", "a_seconds one"),
        good.replace("a_seconds 1\n", "a_seconds 1\na_seconds 2\n"), good.replace("a_seconds 1", "b 1"),
        good.replace("a_seconds", "a_total"), good.replace("a_seconds 1", 'a_seconds{x="\n"} 1'),
    ):  # fmt: skip
        with pytest.raises((AssertionError, KeyError)):
            parsed(bad)


def test_all_metrics_of_a_database_can_be_scraped_by_names_with_their_units(ledger: Ledger) -> None:
    measured(ledger, "shop", datetime.now(UTC), **dict.fromkeys(KINDS, 0.5))
    families = scraped(ledger, "shop")
    shop = (("database", "shop"),)
    assert sum(shop in family.samples for family in families.values()) == len(KINDS) + 1
    assert families["dbplatform_cache_hit_ratio"].meta["UNIT"] == "ratio"
    assert families["dbplatform_longest_transaction_seconds"].meta["UNIT"] == "seconds"
    assert families["dbplatform_database_bytes"].meta["UNIT"] == "bytes"
    assert families["dbplatform_commits_per_second"].samples == {shop: 0.5}


def test_a_name_with_quotes_and_line_feeds_is_a_label_like_any_other(ledger: Ledger) -> None:
    name = 'a "b" \\ c\nd ü'
    measured(ledger, name, datetime.now(UTC), locks=3)
    assert scraped(ledger, name)["dbplatform_locks"].samples == {
        (("database", 'a \\"b\\" \\\\ c\\nd ü'),): 3.0,
    }


def test_what_grows_in_a_database_makes_no_more_series(ledger: Ledger) -> None:
    now = datetime.now(UTC)
    for minutes in range(20):  # each about another table
        measured(ledger, "shop", now - timedelta(minutes=20 - minutes), dead_tuple_ratio=0.5, locks=float(minutes))
    before = sum(len(family.samples) for family in scraped(ledger, "shop").values())
    for metric in KINDS:
        put_alert(ledger, "shop", metric)
    families = scraped(ledger, "shop")
    assert sum(len(family.samples) for family in families.values()) == before
    assert families["dbplatform_locks"].samples == {(("database", "shop"),): 19.0}
    firing = (("database", "shop"), ("severity", "critical"), ("state", "firing"))
    assert families["dbplatform_alerts"].samples[firing] == len(KINDS)


def test_a_value_of_long_ago_is_not_told_as_one_of_now(ledger: Ledger) -> None:
    at = datetime.now(UTC) - timedelta(hours=1)
    measured(ledger, "shop", at, locks=3)
    families = scraped(ledger, "shop")
    assert "dbplatform_locks" not in families
    assert families["dbplatform_collection_timestamp_seconds"].samples == {(("database", "shop"),): at.timestamp()}


def test_a_watch_that_stopped_can_be_seen(ledger: Ledger) -> None:
    heartbeats.beat(ledger, heartbeats.WATCH)
    heartbeats.beat(ledger, heartbeats.SERVICE)
    heartbeats.miss(ledger, heartbeats.WATCH)
    late = scraped(ledger)["dbplatform_heartbeat_overdue"].samples
    assert late == {(("part", "watch"),): 1.0, (("part", "status_service"),): 0.0}


def test_an_empty_ledger_has_metrics_too(ledger: Ledger) -> None:
    assert set(scraped(ledger)) == {"dbplatform_messages_waiting"}
