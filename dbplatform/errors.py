"""Every error that a user can meet, as a tree.

The docstring of a class is its message: the sentence that the user reads, with the fields of the error in braces.
A ``hint`` says what to do next; ``file`` and ``line`` say where a mistake was written.

    PlatformError
    +-- UsageError              exit 2: the command or the declaration is wrong; nothing was changed
    |   +-- UnknownDatabase
    |   +-- VariableNotSet
    |   `-- NotBuiltYet
    `-- WorkError               exit 3: the command was right, the work failed
        +-- CannotConnect
        +-- LockNotAcquired
        +-- OutOfMemory
        `-- ServerError             the embedded server

Each capability adds the errors of its own below ``UsageError`` or ``WorkError``, in its own folder.
"""

from __future__ import annotations

import errno
import inspect
import re
from pathlib import Path
from typing import Any, ClassVar


class PlatformError(Exception):
    """{message}"""

    exit_code: ClassVar[int] = 3

    def __init__(
        self,
        message: str | None = None,
        *,
        hint: str | None = None,
        file: Path | str | None = None,
        line: int | None = None,
        **fields: Any,
    ) -> None:
        self.fields = fields
        self.hint = hint
        self.file = str(file) if file is not None else None
        self.line = line
        if message is None:
            template = inspect.cleandoc(type(self).__doc__ or "").split("\n\n")[0]
            message = " ".join(template.format(**fields).split())
        self.message = message
        super().__init__(message)

    @property
    def kind(self) -> str:
        """The name of the error as ``--json`` gives it: ``lock_not_acquired``."""
        return kind_of(type(self))

    @property
    def place(self) -> str | None:
        """``file:line`` of the mistake, where it was written in a file."""
        if self.file is None:
            return None
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def as_json(self) -> dict[str, Any]:
        """The ``error`` object of the contract."""
        return {
            "kind": self.kind,
            "message": self.message,
            "hint": self.hint,
            "file": self.file,
            "line": self.line,
        }

    def __str__(self) -> str:
        text = f"{self.place}: {self.message}" if self.place else self.message
        return f"{text} {self.hint}" if self.hint else text


def kind_of(error: type[PlatformError]) -> str:
    """The kind of every error of a class."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", error.__name__).lower()


class UsageError(PlatformError):
    """{message}"""

    exit_code = 2


class WorkError(PlatformError):
    """{message}"""

    exit_code = 3


class UnknownDatabase(UsageError):
    """No database named {name!r} is declared in {project}."""


class VariableNotSet(UsageError):
    """The environment variable {variable}, which {purpose}, is not set."""


class NotBuiltYet(UsageError):
    """{what} is not built yet."""


class CannotConnect(WorkError):
    """Cannot connect to {target}: {reason}."""


class LockNotAcquired(WorkError):
    """Another session holds {lock}; gave up after {waited_ms} ms."""


class ServerError(WorkError):
    """{message}"""


class OutOfMemory(WorkError):
    """This process was refused memory: {reason}."""


#: Said by zstd and libpq, and by Python of a thread.
_NO_MEMORY = re.compile(r"not enough memory|out of memory|cannot allocate memory|can't start new thread")


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """The error for one that says that this process was refused memory, in the words of whichever library asked.

    Such an error says nothing of what was read or written meanwhile: no file is damaged and no disk full because of it.
    """
    words = " ".join(str(error).split())
    if isinstance(error, OSError) and error.errno is not None:
        refused = error.errno == errno.ENOMEM
    else:
        # With an SQLSTATE it comes from a server, and is of that one's memory.
        asked = isinstance(error, OSError | RuntimeError) or getattr(error, "sqlstate", "") is None
        refused = isinstance(error, MemoryError) or (asked and _NO_MEMORY.search(words) is not None)
    if not refused:
        return None
    return OutOfMemory(
        reason=words.rstrip(".") or "it held more than its limit",
        hint="Raise its limit (of the container, the service, ulimit), end what else needs the machine's memory, or "
        "give it less at once; then run it again: it goes on where it stood.",
    )
