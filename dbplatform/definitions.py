"""The Dagster entry point: everything that ``defs/`` declares."""

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
    named = os.environ.get(PROJECT_VARIABLE)
    return definitions_of(Project.at(Path(named)) if named else Project.find(Path(__file__)))
