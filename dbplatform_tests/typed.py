"""Commands as a person types them, in this process: what they print and how they end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from dbplatform.cli.main import main


class Typed(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Type = Callable[..., Typed]


def typist(project: Path, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types commands for the project in a folder; none of them may answer with a traceback."""

    def typed(*arguments: str) -> Typed:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main(["-C", str(project), *arguments])
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        return Typed(int(left.value.code or 0), captured.out, captured.err)

    return typed
