"""The Dagster entry point: everything that ``defs/`` declares."""

import gc
import os
from pathlib import Path

import dagster as dg

from dbplatform.declaration.project import Project
from dbplatform.orchestration.location import definitions_of

#: Set by the command line for a project elsewhere.
PROJECT_VARIABLE = "DBPLATFORM_PROJECT"


@dg.definitions
def definitions() -> dg.Definitions:
    """The code location of the project that the variable names, else of this repository."""
    # Definitions are no garbage, and of hundreds of databases they are millions of objects: to look through them for
    # some at every 700 new ones takes a sixth of the time of loading.
    gc.set_threshold(50_000, 20, 50)
    named = os.environ.get(PROJECT_VARIABLE)
    return definitions_of(Project.at(Path(named)) if named else Project.find(Path(__file__)))
