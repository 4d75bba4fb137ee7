"""Dagster's own scheduler over a small project, on a clock that the test turns."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.scheduler.instigation import InstigatorTick
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.storage.defs_state.base import set_defs_state_storage
from dagster._core.test_utils import InProcessTestWorkspaceLoadTarget
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._scheduler.scheduler import ScheduleIterationTimes, launch_scheduled_runs

from dbplatform.orchestration import schedules

_LOCATION = """\
from pathlib import Path

from dbplatform.declaration.project import Project
from dbplatform.orchestration.location import definitions_of

defs = definitions_of(Project.at(Path(__file__).parent))
"""


@dataclass
class Clock:
    """What the platform takes for now."""

    now: datetime = datetime(2027, 1, 1, tzinfo=UTC)

    def read(self) -> datetime:
        return self.now


@dataclass
class Scheduler:
    """The daemon's scheduler, looking whenever the test says so. Runs are kept, and never begin."""

    instance: dg.DagsterInstance
    workspace: WorkspaceProcessContext
    clock: Clock
    _times: dict[str, ScheduleIterationTimes] = field(default_factory=dict)

    def look(self, now: datetime) -> None:
        """One iteration of the scheduler at this time."""
        self.clock.now = now.astimezone(UTC)
        logger = logging.getLogger("turned clock")
        errors = [
            found
            for found in launch_scheduled_runs(
                self.workspace, logger, end_datetime_utc=self.clock.now, iteration_times=self._times
            )
            if found is not None
        ]
        assert not errors, errors

    def pass_time(self, until: datetime, step: timedelta = timedelta(hours=1)) -> None:
        """The daemon runs until then, and every run ends before the next look."""
        while self.clock.now < until:
            self.look(min(self.clock.now + step, until.astimezone(UTC)))
            self.end_runs()

    def end_runs(self) -> None:
        """Every run that has not ended does so."""
        for run in self.instance.get_runs(dg.RunsFilter(statuses=schedules.NOT_FINISHED_STATUSES)):
            self.instance.report_run_canceled(run)

    @property
    def jobs(self) -> set[str]:
        """The jobs that have a schedule."""
        [location] = self.workspace.create_request_context().code_locations
        [repository] = location.get_repositories().values()
        return {schedule.job_name for schedule in repository.get_schedules()}

    def runs(self, job: str) -> list[DagsterRun]:
        """The runs of a job, oldest first."""
        return list(reversed(self.instance.get_runs(dg.RunsFilter(job_name=job))))

    def ticks(self, schedule: str) -> list[InstigatorTick]:
        """The ticks of a schedule, oldest first."""
        found = self._schedule(schedule)
        return list(reversed(self.instance.get_ticks(found.get_remote_origin_id(), found.selector_id)))

    def stop(self, schedule: str) -> None:
        """As the switch in the UI."""
        found = self._schedule(schedule)
        self.instance.stop_schedule(found.get_remote_origin_id(), found.selector_id, found)

    def is_running(self, schedule: str) -> bool:
        """Whether its switch is on."""
        found = self._schedule(schedule)
        state = self.instance.get_instigator_state(found.get_remote_origin_id(), found.selector_id)
        return found.get_current_instigator_state(state).is_running

    def _schedule(self, name: str) -> dg._core.remote_representation.external.RemoteSchedule:  # type: ignore[name-defined]
        [location] = self.workspace.create_request_context().code_locations
        [repository] = location.get_repositories().values()
        return repository.get_schedule(name)


@contextmanager
def scheduler(folder: Path, instance: dg.DagsterInstance, clock: Clock | None = None) -> Iterator[Scheduler]:
    """The scheduler over the project in a folder, as after a start of the daemon."""
    file = folder / "location.py"
    file.write_text(_LOCATION)
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(executable_path=sys.executable, python_file=str(file), attribute="defs"),
        location_name="dbplatform",
    )
    clock = clock or Clock()
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(schedules, "current_time", clock.read))
        # An evaluated schedule may leave the storage of its own short-lived instance as the current one.
        stack.enter_context(set_defs_state_storage(instance.defs_state_storage))
        workspace = stack.enter_context(WorkspaceProcessContext(instance, InProcessTestWorkspaceLoadTarget(origin)))
        yield Scheduler(instance, workspace, clock)
