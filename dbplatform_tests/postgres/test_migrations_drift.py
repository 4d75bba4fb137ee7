"""Drift: each hand-made difference is found, named and, where it is safe, mended by the SQL that is shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from dbplatform.migrations.drift.engine import Expected
from dbplatform.migrations.drift.mending import fix_sql
from dbplatform_tests.postgres.drift_changes import CHANGES, ON_15
from dbplatform_tests.postgres.drift_support import Shop, built, mend

if TYPE_CHECKING:
    from dbplatform_tests.second_server import SecondServer

pytest_plugins = ("dbplatform_tests.second_server",)


@pytest.fixture(scope="module")
def shop(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with built(server_url, tmp_path_factory.mktemp("shop")) as shop:
        yield shop


@pytest.fixture(scope="module")
def shop_15(second_server: SecondServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with built(second_server.superuser_url(), tmp_path_factory.mktemp("shop_15")) as shop:
        yield shop


def test_an_untouched_database_has_no_drift(shop: Shop) -> None:
    with shop.copy() as connection:
        assert [str(difference) for difference in shop.drift(connection).differences] == []


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_by_hand_is_found_and_named_and_its_sql_mends_it(shop: Shop, name: str) -> None:
    check(shop, name)


@pytest.mark.parametrize("name", ON_15)
def test_a_change_by_hand_is_found_and_mended_on_postgresql_15(shop_15: Shop, name: str) -> None:
    check(shop_15, name)


def check(shop: Shop, name: str) -> None:
    change = CHANGES[name]
    with shop.copy() as connection:
        connection.execute(change.by_hand.encode())
        report = shop.drift(connection)
        assert sorted(str(d) for d in report.differences if fix_sql(d)) == sorted(change.mended)
        assert sorted(str(d) for d in report.differences if not fix_sql(d)) == sorted(change.left_to_a_person)
        for difference in report.differences:
            assert str(difference).replace("comment on", "comment").startswith(
                f"{difference.kind} {difference.name} "
            ) or (difference.kind == "grant" and difference.object.sql["of"] in str(difference))
        mend(connection, report)
        assert sorted(map(str, shop.drift(connection).differences)) == sorted(change.left_to_a_person)


def test_what_the_migrations_make_is_the_same_after_it_was_kept_as_json(shop: Shop) -> None:
    again = Expected.from_json(shop.expected.as_json())
    assert again == shop.expected
    assert all(again.objects[key].sql == thing.sql for key, thing in shop.expected.objects.items())


def test_partitions_that_the_platform_makes_are_left_out_and_others_are_not(shop: Shop) -> None:
    with shop.copy() as connection:
        connection.execute(
            "create table event_1 partition of event for values from ('2026-01-01') to ('2026-02-01'); "
            "alter table event_1 add constraint what check (what <> ''); grant select on event_1 to drift_reader; "
            "create index on event_1 (at); comment on table event_1 is 'January'; "
            "create table log_2027 partition of log for values from ('2027-01-01') to ('2028-01-01')"
        )
        report = shop.drift(connection)
        assert [str(d) for d in report.differences] == ["table public.log_2027 should not be there"]
