"""The data of embedded servers whose project is gone: found by its home, removed only while that is so."""

from __future__ import annotations

from pathlib import Path

import pytest

from dbplatform.postgres.embedded import account, place


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in the place of ``/var/lib/dbplatform``, with one server of each kind, and what is none."""
    shared = tmp_path / "shared"
    for name in ("gone", "moved", "used", "begun"):
        home = tmp_path / name / "server"
        folder = shared / f"{name}-1"
        (folder / "data").mkdir(parents=True)
        (folder / "home").write_text(f"{home}\n")
        if name != "gone":
            home.mkdir(parents=True)
        if name in ("moved", "used"):
            (home / "place").write_text(str(folder if name == "used" else shared / "moved-2"))
    (shared / "programs-17.10-0123456789" / "bin").mkdir(parents=True)
    monkeypatch.setattr(place, "SHARED_ROOT", shared)
    monkeypatch.setattr(account, "SHARED_ROOT", shared)
    return shared


def test_only_servers_whose_home_is_gone_or_has_begun_anew_are_forgotten(shared: Path) -> None:
    assert [folder.name for folder in place.forgotten_servers()] == ["gone-1", "moved-1"]
    assert [place.remove_forgotten(folder) for folder in place.forgotten_servers()] == [True, True]
    assert sorted(one.name for one in shared.iterdir() if one.is_dir()) == [
        "begun-1",
        "programs-17.10-0123456789",
        "used-1",
    ]


def test_one_that_has_a_home_again_is_not_removed(shared: Path) -> None:
    [gone, _] = place.forgotten_servers()
    Path((gone / "home").read_text().strip()).mkdir(parents=True)
    assert not place.remove_forgotten(gone)
    assert (gone / "data").is_dir()
