"""The whole way of an old partition in one run: backup, proof, archive, retirement; and back again."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from dbplatform_tests.installation import Installation, small_project

_DECLARATION = """\
type: dbplatform.ManagedDatabase
attributes:
  name: shop
  migrations: {}
  partitioned_tables:
    - {table: sale, column: at, interval: 1 month, premake: 1, start: 1 month, retain: 12 months}
  backups: {}
  archives:
    - {name: old, table: sale, by: partition}
"""
_MIGRATION = """\
create table sale (id int not null, at timestamptz not null, primary key (id, at)) partition by range (at);
create table sale_2020_01 partition of sale for values from ('2020-01-01') to ('2020-02-01');
create table sale_2020_02 partition of sale for values from ('2020-02-01') to ('2020-03-01');
insert into sale select i, timestamptz '2020-01-01' + i * interval '1 hour' from generate_series(1, 1000) i;
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with small_project(tmp_path_factory.mktemp("shop"), _DECLARATION, _MIGRATION) as installation:
        yield installation


def test_one_run_archives_behind_a_proven_backup_and_drops_what_is_archived(shop: Installation) -> None:
    steps = shop.json("run", "shop")["steps"]
    assert steps["shop/restore_drill"]["proven"] is True
    assert (steps["shop/archive/old"]["rows archived"], steps["shop/archive/old"]["rows not proven"]) == (1000, 0)
    retired = steps["shop/retirement/sale"]
    assert (retired["dropped"], retired["detached"], retired["waiting for the archive"]) == (2, 0, 0)
    with shop.connect("shop") as connection:
        assert connection.execute("select count(*), to_regclass('sale_2020_01') from sale").fetchone() == (0, None)
    listed = shop.json("archive", "list", "shop")["archives"]
    assert sorted((one["rows"], one["deleted_rows"], one["status"]) for one in listed) == [
        (257, 257, "deleted"),
        (743, 743, "deleted"),
    ]

    shop.json("partition", "apply", "shop", "--start", "2020-01-01")
    for one in listed:
        assert shop.json("archive", "restore", "shop", one["id"], "--yes")["restored"] == one["rows"]
    with shop.connect("shop") as connection:
        assert connection.execute("select count(*), count(distinct id), sum(id) from sale").fetchone() == (
            1000,
            1000,
            500500,
        )
