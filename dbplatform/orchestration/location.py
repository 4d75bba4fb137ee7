"""The definitions of a whole project. One broken declaration hides no other.

A project whose declarations all hold is loaded by Dagster's own loader, as ``dg`` does. Where one is broken, that
loader would refuse the whole location: then the others are loaded one by one, and the broken one appears as an asset
that says what is wrong with it, and fails when it is run.
"""

import importlib
import logging
import multiprocessing
import os
import re
from pathlib import Path

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob

from dbplatform.declaration.loading import FILE, Broken, Declarations, Declared, load_of_job
from dbplatform.declaration.project import PACKAGE, Project
from dbplatform.operations.platform import Platform
from dbplatform.orchestration.automation import automation_sensors
from dbplatform.orchestration.component import ManagedDatabase
from dbplatform.orchestration.sensors import watch_sensor
from dbplatform.orchestration.steps import failure
from dbplatform.orchestration.workers import step_executor

_log = logging.getLogger(__name__)


def definitions_of(project: Project) -> dg.Definitions:
    """Everything that the project declares."""
    platform = Platform(project)
    declarations = platform.declarations
    # A run of chosen assets (Materialize, an automation) is executed as the jobs are.
    sensors = [watch_sensor(platform, declarations.databases), *automation_sensors(declarations.databases)]
    watch = dg.Definitions(sensors=sensors, executor=step_executor())
    if project.defs == PACKAGE / "defs" and not declarations.broken:
        return dg.Definitions.merge(dg.load_from_defs_folder(path_within_project=PACKAGE), watch)
    return dg.Definitions.merge(
        watch,
        *(ManagedDatabase(platform, declared).build_defs() for declared in declarations.databases),
        *(_broken(broken) for broken in declarations.broken),
        *_other_components(project, declarations),
    )


def definitions_of_one(platform: Platform, declared: Declared) -> dg.Definitions:
    """What one database declares: enough for a run of its jobs, however many others there are."""
    return ManagedDatabase(platform, declared).build_defs()


def definitions_for(project: Project, job: str) -> dg.Definitions | None:
    """What a run of this job needs; None where it is not the job of one database."""
    declared = load_of_job(project, job)
    return None if declared is None else definitions_of_one(Platform(project), declared)


def job_of_this_process() -> str | None:
    """The job for whose run alone Dagster started this process; None where it may be asked for others.

    Run launchers with a container for each run name it in a variable; Dagster's own starts a process, whose work is in
    its arguments.
    """
    if (named := os.environ.get("DAGSTER_RUN_JOB_NAME")) is not None:
        return named
    arguments = getattr(multiprocessing.current_process(), "_args", ())
    return next((one.job_name for one in arguments if isinstance(one, ReconstructableJob)), None)


def _broken(broken: Broken) -> dg.Definitions:
    """An asset in the place of a database that could not be loaded."""
    _log.error("%s", broken.error)
    word = re.sub(r"[^A-Za-z0-9_]", "_", broken.folder)

    @dg.asset(
        key=dg.AssetKey([word, "declaration"]),
        group_name=word,
        description=f"This declaration is broken, so its database is not loaded. {broken.error}",
        kinds={"yaml"},
    )
    def declaration() -> None:
        raise failure(broken.error)

    return dg.Definitions(assets=[declaration])


def _other_components(project: Project, declarations: Declarations) -> list[dg.Definitions]:
    """What else lies in this repository's ``defs``: components of other types, each in a folder of its own."""
    if project.defs != PACKAGE / "defs":
        return []
    ours = {declared.folder for declared in declarations.databases}
    broken = {one.folder for one in declarations.broken}
    others = [file.parent for file in sorted(project.defs.rglob(FILE)) if file.parent not in ours]
    others = [folder for folder in others if folder.name not in broken]
    return [dg.load_defs(importlib.import_module(_module(folder))) for folder in others]


def _module(folder: Path) -> str:
    return ".".join((PACKAGE.name, *folder.relative_to(PACKAGE).parts))
