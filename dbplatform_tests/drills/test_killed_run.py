"""``kill -9`` in every step of the main job: the next run ends green, and every table is as if nothing had happened.

Each point by itself is a drill; every run of the tests kills one run after the other at three of them.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import pytest

from dbplatform.home import Home
from dbplatform_tests.drills.matrix import cases
from dbplatform_tests.installation import Installation


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    installation = Installation(Home(root=tmp_path_factory.mktemp("killed")))
    installation.server.start()
    yield installation
    installation.server.remove()


@pytest.fixture(scope="module")
def undisturbed(flights: Installation) -> dict[str, tuple[int, str]]:
    """What every table holds after a run that nobody disturbed."""
    return flights.hashes()


@pytest.mark.parametrize(
    ("task", "done"),
    cases(
        ("step flights/migrations", 0),
        ("migrate flights", 2),
        ("step flights/partitions/flights", 0),
        ("partition flights", 5),
        ("partition weather", 5),
        ("step flights/seed", 0),
        ("seed weather", 10_000),
        ("seed flights", 150_000),
        ("step flights/seed", 1),
        ("step flights/tables/airlines", 0),
        ("step flights/tables/airports", 0),
        ("check planes", 2),
        ("check weather", 3),
        ("check flights", 5),
        ("step flights/tables/flights", 1),
        ("step flights/quality_report", 0),
        ("backup flights: dumped", 1),
        ("backup flights: renamed", 1),
        ("drill flights: loaded", 1),
        ("step flights/archive/old_flights", 0),
        ("archive old_flights write", 0),
        ("archive old_flights batch", 30_000),
        ("archive old_flights done", 0),
        sample=(),
    ),
)
def test_a_run_killed_here_is_made_good_by_the_next(
    installation: Installation, undisturbed: dict[str, tuple[int, str]], task: str, done: int
) -> None:
    installation.forget()
    kill(installation, task, done)
    assert_made_good(installation, undisturbed)


def test_a_run_killed_while_rows_leave_is_made_good_by_the_next(
    installation: Installation, undisturbed: dict[str, tuple[int, str]]
) -> None:
    installation.forget()
    kill(installation, "archive old_flights batch", 30_000)
    assert_made_good(installation, undisturbed)


def kill(installation: Installation, task: str, done: int) -> None:
    """Run the main job until it dies at this point of its progress."""
    killed = installation.command(task, str(done), "run", "flights", module="dbplatform_tests.drills.killed_run")
    assert killed.returncode == -signal.SIGKILL, f"the point was not reached: {killed.stdout}{killed.stderr}"


def assert_made_good(installation: Installation, undisturbed: dict[str, tuple[int, str]]) -> None:
    """The next run ends well, and nothing tells the database from one whose run nobody disturbed."""
    after = installation.command("run", "flights", "--json")

    assert after.returncode == 0, after.stderr
    assert json.loads(after.stdout)["status"] == "succeeded"
    assert installation.hashes() == undisturbed
    checked = installation.here("check", "flights", "--table", "flights", exit_code=1)
    archived = json.loads(after.stdout)["steps"]["flights/archive/old_flights"]["rows in archives"]
    assert checked["tables"][0]["row_count"] + archived == undisturbed["flights"][0]
    verified = installation.here("seed", "verify", "flights", exit_code=1)
    assert all(table["match"] for table in verified["tables"]), "exit 1 is of the checks: the data has defects"
    assert {reference["orphans"] for reference in verified["references"]} == {0}
    assert installation.here("backup", "list", "flights")["backups"][0]["proven_at"]
