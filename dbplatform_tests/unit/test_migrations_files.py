"""Names, versions, order and checksums of migration files are Flyway's."""

from __future__ import annotations

import subprocess
import sys
import zlib
from itertools import pairwise
from pathlib import Path

import pytest

from dbplatform.errors import NotBuiltYet
from dbplatform.migrations.errors import MigrationFileError
from dbplatform.migrations.files import Version, checksum, discover


def write(directory: Path, **files: str) -> Path:
    for name, text in files.items():
        (directory / f"{name}.sql").write_text(text, encoding="utf-8")
    return directory


def crc(text: str) -> int:
    """CRC32 of one line as Java's int, the reference for the rules below."""
    return int.from_bytes(zlib.crc32(text.encode()).to_bytes(4, "big"), "big", signed=True)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("last", [True, False])
def test_checksum_does_not_depend_on_line_ends(end: str, last: bool) -> None:
    text = end.join(["create table t (a int);", "", "", "select 1;"]) + (end if last else "")
    assert checksum(text) == crc("create table t (a int);select 1;")


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\x85", "\u2028", "\u2029"])
def test_checksum_counts_what_python_but_not_java_takes_for_a_line_end(separator: str) -> None:
    assert checksum(f"a{separator}b") == crc(f"a{separator}b") != crc("ab")


def test_checksum_counts_spaces_and_reads_utf8() -> None:
    assert checksum("select 'Zürich - 東京 🛫'; ") == crc("select 'Zürich - 東京 🛫'; ")
    assert checksum("a") != checksum(" a") != checksum("a ")


def test_checksum_of_nothing_is_zero() -> None:
    assert checksum("") == checksum("\r\n\n\r") == 0


def test_a_file_with_byte_order_mark_and_crlf_has_the_checksum_of_the_plain_file(tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_bytes(b"\xef\xbb\xbfselect 1;\r\nselect 2;\r\n")
    (tmp_path / "V2__b.sql").write_bytes(b"select 1;\nselect 2;")
    first, second = discover(tmp_path)
    assert checksum(first.text) == checksum(second.text)


def test_versions_are_ordered_by_number() -> None:
    texts = ["1", "1.1", "1_2", "1.10", "2", "10", "20130115113556", "2013011511355600000000000000"]
    versions = [Version.parse(text) for text in texts]
    assert all(a < b for a, b in pairwise(versions))


def test_zeros_at_the_end_of_a_version_do_not_count() -> None:
    assert Version.parse("1") == Version.parse("1.0") == Version.parse("001") == Version.parse("1_0_0")
    assert hash(Version.parse("1")) == hash(Version.parse("1.0"))
    assert str(Version.parse("1_0")) == "1.0"


@pytest.mark.parametrize("text", ["", "a", "1.", ".1", "1..2", "1-2", "v1", "\u0661"])
def test_what_is_no_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a version"):
        Version.parse(text)


def test_discover_orders_versions_before_repeatables(tmp_path: Path) -> None:
    write(tmp_path, R__b="", R__a_view="", V2__two="", V10__ten="", V1_1__one_one="", V1__first_of_all="")
    found = discover(tmp_path)
    assert [m.script for m in found] == [
        "V1__first_of_all.sql",
        "V1_1__one_one.sql",
        "V2__two.sql",
        "V10__ten.sql",
        "R__a_view.sql",
        "R__b.sql",
    ]
    assert [m.description for m in found][:2] == ["first of all", "one one"]
    assert [str(m.version) for m in found][:2] == ["1", "1.1"]


def test_discover_recognises_undo_and_baseline_files(tmp_path: Path) -> None:
    write(tmp_path, V1__a="", U1__a="", B1__base="")
    kinds = [(m.kind, str(m.version)) for m in discover(tmp_path)]
    assert kinds == [("baseline", "1"), ("undo", "1"), ("versioned", "1")]


def test_several_folders_are_read_as_one(tmp_path: Path) -> None:
    for folder in ("common", "shop", "shop/2026"):
        (tmp_path / folder).mkdir()
    write(tmp_path / "common", V1__a="", V3__c="")
    write(tmp_path / "shop", V2__b="")
    write(tmp_path / "shop" / "2026", V4__d="")
    found = discover((tmp_path / "shop" / "2026", tmp_path / "common", tmp_path / "shop"))
    assert [m.script for m in found] == ["V1__a.sql", "V2__b.sql", "V3__c.sql", "2026/V4__d.sql"]


def test_two_folders_may_not_hold_the_same_version(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, V1__x="")
    with pytest.raises(MigrationFileError, match="same version 1"):
        discover((tmp_path / "a", tmp_path / "b"))


def test_discover_searches_subfolders_and_names_scripts_by_their_path(tmp_path: Path) -> None:
    (tmp_path / "2026").mkdir()
    write(tmp_path / "2026", V1__a="")
    assert [m.script for m in discover(tmp_path)] == ["2026/V1__a.sql"]


@pytest.mark.parametrize(
    "name",
    ["V1_a.sql", "v1__a.sql", "V1__.sql", "V__a.sql", "Va__b.sql", "V1.__a.sql", "R1__a.sql", "a.sql", "R_a.sql"],
)
def test_a_misnamed_file_is_refused_with_its_name_and_the_pattern(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("select 1;")
    with pytest.raises(MigrationFileError, match=r"V<version>__<words>\.sql") as caught:
        discover(tmp_path)
    assert caught.value.file == str(tmp_path / name)


@pytest.mark.parametrize(
    "name",
    ["beforeClean.sql", "afterEachMigrateStatementError__x.sql", "createSchema.sql", "afterMigrateOperationFinish.sql"],
)
def test_callbacks_of_verbs_that_do_not_exist_here_are_refused_by_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("select 1;")
    with pytest.raises(NotBuiltYet, match=name.removesuffix(".sql").partition("__")[0] + " is not built yet"):
        discover(tmp_path)


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("words")
    assert discover(tmp_path) == []


@pytest.mark.parametrize(("first", "second"), [("V1__a", "V1_0__b"), ("R__a_b", "R__a b"), ("U2__a", "U2.0__b")])
def test_duplicates_are_refused_and_both_files_named(tmp_path: Path, first: str, second: str) -> None:
    write(tmp_path, **{first: "", second: ""})
    with pytest.raises(MigrationFileError) as caught:
        discover(tmp_path)
    assert f"{first}.sql" in caught.value.message
    assert f"{second}.sql" in caught.value.message


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MigrationFileError, match="does not exist"):
        discover(tmp_path / "nowhere")


def test_a_file_that_is_not_utf8_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "V1__a.sql").write_bytes(b"select 1;\nselect 'Z\xfcrich';\n")
    with pytest.raises(MigrationFileError, match="not UTF-8") as caught:
        discover(tmp_path)
    assert caught.value.place == f"{tmp_path / 'V1__a.sql'}:2"


def test_conf_sets_the_transaction_and_the_placeholders(tmp_path: Path) -> None:
    write(tmp_path, V1__a="")
    (tmp_path / "V1__a.sql.conf").write_text(
        "# as Flyway reads it\nexecuteInTransaction = false\nplaceholderReplacement=false\nencoding=UTF-8\n"
    )
    migration = discover(tmp_path)[0]
    assert (migration.execute_in_transaction, migration.placeholder_replacement) == (False, False)


def test_an_unknown_setting_in_conf_is_not_built_yet(tmp_path: Path) -> None:
    write(tmp_path, V1__a="")
    (tmp_path / "V1__a.sql.conf").write_text("executeInTransaction=false\nshouldExecute=false\n")
    with pytest.raises(NotBuiltYet) as caught:
        discover(tmp_path)
    assert caught.value.place == f"{tmp_path / 'V1__a.sql.conf'}:2"


def test_a_setting_in_conf_is_true_or_false(tmp_path: Path) -> None:
    write(tmp_path, V1__a="")
    (tmp_path / "V1__a.sql.conf").write_text("executeInTransaction=no\n")
    with pytest.raises(MigrationFileError, match="executeInTransaction is 'no'"):
        discover(tmp_path)


def test_the_engine_is_imported_without_sqlalchemy_and_dagster() -> None:
    program = "import sys, dbplatform.migrations.engine; print({'sqlalchemy', 'dagster'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
