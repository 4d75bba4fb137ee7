"""The Dagster entry point: everything that ``defs/`` declares."""

import gc
import os
from pathlib import Path

import dagster as dg

from dbplatform.declaration.project import Project
from dbplatform.orchestration.location import definitions_for, definitions_of, job_of_this_process

#: Set by the command line for a project elsewhere.
PROJECT_VARIABLE = "DBPLATFORM_PROJECT"


@dg.definitions
def definitions() -> dg.Definitions:
    """The code location of the project that the variable names, else of this repository.

    A process that was started for the run of one job gets what that job needs: hundreds of other databases would take
    it longer than the run.
    """
    # Definitions are no garbage, and of hundreds of databases they are millions of objects: to look through them for
    # some at every 700 new ones takes a sixth of the time of loading.
    gc.set_threshold(50_000, 20, 50)
    named = os.environ.get(PROJECT_VARIABLE)
    project = Project.at(Path(named)) if named else Project.find(Path(__file__))
    job = job_of_this_process()
    return (definitions_for(project, job) if job is not None else None) or definitions_of(project)
