"""What a seed folder may say, and how mistakes in it are shown."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from dbplatform.errors import UsageError
from dbplatform.postgres.words import Interval
from dbplatform.seeding.errors import SeedDirectoryMissing, SeedFileMissing, SeedMistake, SeedPackageMissing
from dbplatform.seeding.files import SeedFile, locate
from dbplatform.seeding.manifest import read_manifest
from dbplatform.seeding.policy import SeedPolicy
from dbplatform.seeding.shift import NothingToShift, find_shift, mover

DEV = SeedPolicy(profile="dev", directory="seeds/dev")


def test_csv_files_are_taken_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("02_flights.csv.gz", "01_ops.planes.jsonl", "03_airlines.sql", "README.md", ".keep"):
        (tmp_path / name).write_bytes(b"")
    assert [str(t.table) for t in read_manifest(tmp_path, DEV).tables] == [
        "ops.planes",
        "public.flights",
        "public.airlines",
    ]


@pytest.mark.parametrize("name", ["01_users.yaml", "users.json", "users.sql.gz"])
def test_other_kinds_of_files_are_refused_with_those_that_are_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(SeedMistake, match=r"\.csv, \.jsonl") as caught:
        read_manifest(tmp_path, DEV)
    assert name in str(caught.value)


def test_a_missing_or_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SeedDirectoryMissing):
        read_manifest(tmp_path / "nowhere", DEV)
    with pytest.raises(SeedMistake, match="no seed file"):
        read_manifest(tmp_path, DEV)


def test_columns_may_be_a_list_or_renames(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"")
    (tmp_path / "b.csv").write_bytes(b"")
    (tmp_path / "seed.yaml").write_text(
        "tables:\n- {table: a, file: a.csv, columns: [x, y]}\n- {table: b, file: b.csv, columns: {made: year}}\n"
    )
    first, second = read_manifest(tmp_path, DEV).tables
    assert first.columns == {"x": "x", "y": "y"}
    assert second.columns == {"made": "year"}


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("tables:\n- table: a\n  file: a.csv\n  colums: [x]\n", 4, "colums"),
        ("tables:\n- table: a\n  file: a.csv\n  columns: 3\n", 4, "columns"),
        ("tables:\n- table: a\n  file: a.csv\n  columns: [x, x]\n", 4, "named twice"),
        ("tables:\n- table: a b\n  file: a.csv\n", 2, "is not a name"),
        ("tables:\n- table: a\n  file: a.csv\n- table: public.a\n  file: a.csv\n", 4, "twice"),
        ("tables:\n- table: a\n  file: a.csv\n  file: b.csv\n", 4, "written twice"),
        ("tables:\n- table: a\n  file: a.csv\n  shift: [x]\n", 4, "no shift"),
        ("nulls: [NA, 3]\ntables:\n- {table: a, file: a.csv}\n", 1, "string"),
        (
            "shift:\n  newest: {file: a.csv, column: x}\n  by: 1 month\ntables:\n- {table: a, file: a.csv}\n",
            3,
            "varies",
        ),
        ("tables: [\n", 2, "not YAML"),
        ("", 1, "tables"),
        ("tables: []\n", 1, "tables"),
        ("tables:\n- {table: a, file: a.xml}\n", 2, "is no seed file"),
        ("tables:\n- {table: b, file: b.csv}\n", 1, "a.csv lies in the folder"),
    ],
)
def test_a_mistake_in_the_manifest_is_shown_with_its_line(tmp_path: Path, text: str, line: int, says: str) -> None:
    (tmp_path / "a.csv").write_bytes(b"x\n")
    (tmp_path / "seed.yaml").write_text(text)
    with pytest.raises(UsageError, match=says) as caught:
        read_manifest(tmp_path, DEV)
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "seed.yaml"), line)


GENERATED = """\
tables:
- table: a
  rows: 10
  generate:
    id: {sequence: 1}
    word: WORD
"""


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ("{choise: [a]}", "choise"),
        ("{}", "says not how its values come about"),
        ("{uuid: true, value: 1}", r"has 2 kinds \(value, uuid\)"),
        ("{choice: []}", "at least 1"),
        ("{choice: {a: 0}}", "weight of 'a' must be above 0"),
        ("{boolean: 2}", "less than or equal to 1"),
        ("{integer: {min: 2, max: 1}}", "max 1 lies below min 2"),
        ("{date: {from: 2024-01-02, to: 2024-01-02}}", "to must come after from"),
        ("{timestamp: {from: 2024-01-02}}", "from and to, or after and within"),
        ("{timestamp: {after: id, within: 1 month}}", "has months"),
        ("{faker: No Name}", "cannot be a name"),
        ("{reference: a b}", "is not a name"),
        ("{bcrypt: {}}", "from env or from value"),
        ("{uuid: true, unique: true}", "unique does not go with uuid"),
        ("{value: x, null_ratio: 1.5}", "less than or equal to 1"),
        ("{text: '{nobody}'}", "reads 'nobody', which is not generated here"),
        ("{text: '{word}'}", "reads itself"),
        ("{text: '{}'}", "reads ''"),
    ],
)
def test_a_mistake_in_a_generator_is_shown_with_its_line(tmp_path: Path, column: str, says: str) -> None:
    (tmp_path / "seed.yaml").write_text(GENERATED.replace("WORD", column))
    with pytest.raises(UsageError, match=says) as caught:
        read_manifest(tmp_path, DEV)
    assert caught.value.line is not None
    # What concerns several columns is the table's mistake.
    assert caught.value.line == (2 if "reads" in says else 6)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ("{table: a}", "has a file, or rows and generate"),
        ("{table: a, rows: 5}", "has a file, or rows and generate"),
        ("{table: a, rows: 0, generate: {id: {sequence: 1}}}", "greater than or equal to 1"),
        ("{table: a, file: a.csv, rows: 5}", "Not both"),
        ("{table: a, file: a.sql, key: [id]}", "is SQL"),
        ("{table: a, rows: 5, key: [nr], generate: {id: {sequence: 1}}}", "'nr' is not generated"),
        ("{table: a, rows: 5, passwords: [id], generate: {id: {sequence: 1}}}", "are for files"),
    ],
)
def test_a_table_is_either_a_file_or_generated(tmp_path: Path, entry: str, says: str) -> None:
    (tmp_path / "seed.yaml").write_text(f"tables:\n- {entry}\n")
    with pytest.raises(UsageError, match=says) as caught:
        read_manifest(tmp_path, DEV)
    assert caught.value.line == 2


@pytest.mark.parametrize(
    "tables", ["[{table: a, file: a.csv, passwords: [p]}]", "[{table: a, rows: 1, generate: {p: {bcrypt: {env: X}}}}]"]
)
def test_weak_hashes_are_for_dev_and_test(tmp_path: Path, tables: str) -> None:
    (tmp_path / "a.csv").write_text("p\n") if "file" in tables else None
    (tmp_path / "seed.yaml").write_text(f"tables: {tables}\nbcrypt_rounds: 4\n")
    assert read_manifest(tmp_path, DEV).bcrypt_rounds == 4
    with pytest.raises(UsageError, match="too weak for the profile staging") as caught:
        read_manifest(tmp_path, SeedPolicy(profile="staging", directory="x"))
    assert caught.value.line == 2


def test_a_file_outside_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_bytes(b"")
    (tmp_path / "seeds").mkdir()
    with pytest.raises(SeedMistake, match="outside"):
        locate(tmp_path / "seeds", None, "../secret.csv")
    with pytest.raises(SeedFileMissing):
        locate(tmp_path / "seeds", None, "none.csv")


def test_the_data_of_a_package_is_found_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "planesdata").mkdir()
    (tmp_path / "planesdata" / "__init__.py").write_text("raise AssertionError('imported')")
    (tmp_path / "planesdata" / "a.csv").write_text("x\n")
    (tmp_path / "planesdata-1.0.dist-info").mkdir()
    (tmp_path / "planesdata-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: planesdata\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert locate(tmp_path, "planesdata", "planesdata/a.csv").bytes == 2
    with pytest.raises(SeedFileMissing, match="the package planesdata"):
        locate(tmp_path, "planesdata", "planesdata/b.csv")


def test_a_package_that_is_not_installed_is_named_with_the_way_to_install_it(tmp_path: Path) -> None:
    with pytest.raises(SeedPackageMissing) as caught:
        locate(tmp_path, "no-such-data-package", "a.csv")
    assert caught.value.hint == "Install it: pip install no-such-data-package."


def shift_of(tmp_path: Path, text: str, now: str) -> int:
    (tmp_path / "a.csv").write_text(text)
    file = SeedFile("a.csv", tmp_path / "a.csv")
    return find_shift(file, "at", None, Interval(days=7), datetime.fromisoformat(now)).steps


def test_the_shift_is_the_most_whole_weeks_that_stay_in_the_past(tmp_path: Path) -> None:
    text = "id,at\n1,2013-01-01T10:00:00Z\n2,2013-12-31T23:00:00Z\n3,\n"
    assert shift_of(tmp_path, text, "2014-01-07T22:59:59Z") == 0
    assert shift_of(tmp_path, text, "2014-01-07T23:00:00Z") == 1
    assert shift_of(tmp_path, text, "2014-01-15T00:30:00+02:00") == 1
    assert shift_of(tmp_path, text, "2013-06-01T00:00:00Z") == 0


def test_a_shift_without_any_time_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NothingToShift):
        shift_of(tmp_path, "id,at\n1,\n", "2014-01-07T22:59:59Z")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"2013-03-10T01:30:00Z", b"2013-03-17T01:30:00+00:00"),
        (b"2013-03-10 01:30:00-05", b"2013-03-17T01:30:00-05:00"),
        (b"2013-12-30", b"2014-01-06T00:00:00"),
    ],
)
def test_moving_keeps_weekday_clock_time_and_zone(before: bytes, after: bytes) -> None:
    assert mover(timedelta(days=7))(before) == after


@pytest.mark.parametrize("profile", ["Dev", "1dev", "", "dev-x"])
def test_a_profile_is_a_plain_word(profile: str) -> None:
    with pytest.raises(ValueError):
        SeedPolicy(profile=profile, directory="x")
