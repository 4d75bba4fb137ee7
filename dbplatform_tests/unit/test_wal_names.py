"""WAL by its names: which segments a recovery reads, also over the forks of timelines, and which one is missing."""

from __future__ import annotations

import pytest

from dbplatform.backups.physical.wal import Segments, Timeline, contiguous_end, lsn_words, parse_lsn, timelines

MB = 1 << 20
HISTORY = "1\t0/5000000\tno recovery target specified\n\n2\t0/9800000\tbefore 2026-01-01\n"


@pytest.mark.parametrize("text", ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"])
def test_positions_are_written_as_postgresql_does(text: str) -> None:
    assert lsn_words(parse_lsn(text)) == text


@pytest.mark.parametrize("text", ["", "16", "16/", "16-1", "g/1", "123456789/1"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no WAL position"):
        parse_lsn(text)


@pytest.mark.parametrize(
    ("size", "lsn", "name"),
    [
        (16 * MB, "0/1000000", "000000010000000000000001"),
        (16 * MB, "0/FFFFFFFF", "0000000100000000000000FF"),
        (16 * MB, "1/0", "000000010000000100000000"),
        (64 * MB, "1/0", "000000010000000100000000"),
        (64 * MB, "0/FFFFFFFF", "00000001000000000000003F"),
        (1 * MB, "0/100000", "000000010000000000000001"),
    ],
)
def test_a_segment_has_the_name_that_the_server_gives_it(size: int, lsn: str, name: str) -> None:
    segments = Segments(size)
    number = segments.number(parse_lsn(lsn))
    assert segments.name(1, number) == name
    assert segments.parse(name) == (1, number)


def test_the_way_to_a_timeline_reads_each_segment_on_the_newest_timeline_that_has_begun_in_it() -> None:
    segments = Segments(16 * MB)
    [third, first] = timelines({3: HISTORY})
    assert (third.id, first.id) == (3, 1)
    names = [third.segment(segments, number) for number in range(4, 11)]
    assert [name[:8] + name[-1] for name in names] == [
        "000000014", "000000025", "000000026", "000000027", "000000028", "000000039", "00000003A",
    ]  # fmt: skip


def test_what_a_server_did_behind_the_fork_is_not_on_the_way() -> None:
    third = timelines({3: HISTORY})[0]
    assert third.holds(1, parse_lsn("0/4000000"))
    assert not third.holds(1, parse_lsn("0/6000000"))
    assert third.holds(2, parse_lsn("0/6000000"))
    assert not third.holds(2, parse_lsn("0/A000000"))
    assert third.holds(3, parse_lsn("7/0"))
    assert not third.holds(4, parse_lsn("7/0"))


def test_wal_ends_before_the_first_segment_that_is_missing() -> None:
    segments, way = Segments(16 * MB), Timeline(begins=((1, 0),))
    archived = [segments.name(1, number) for number in (0xFD, 0xFE, 0xFF, 0x100, 0x102)]
    assert contiguous_end(way, segments, 0xFE, archived) == 0x101
    assert contiguous_end(way, segments, 0x101, archived) == 0x101
    assert contiguous_end(way, segments, 0x102, archived) == 0x103
