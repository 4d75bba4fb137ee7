"""YAML that people write: every value with its line, every mistake one sentence with file, line and what is allowed."""

from __future__ import annotations

import difflib
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from yaml.constructor import SafeConstructor

from dbplatform.errors import UsageError

Where = tuple[str | int, ...]
_READABLE = "Make it a file that you may read."
_ALIAS = "Write it out."
_SYNTAX = "Look at indentation, colons and quotes on this line and the one before."
_TABS = "Indent it by spaces: YAML allows no tabs."
#: The pattern of a key that names an environment variable, in whichever model.
VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
#: The patterns of keys that name something, in whichever model, each with how long a name may be; none: as you like.
_NAMES = {r"^[a-z][a-z0-9_]{0,47}$": 48, r"^[a-z][a-z0-9_]{0,62}$": 63, r"^[a-z][a-z0-9_]*$": None}
_Model = TypeVar("_Model", bound=BaseModel)


class YamlMistake(UsageError):
    """{message}"""


def _composed(text: str) -> yaml.Node | None:
    """The nodes of a document, by libyaml where it is there, ten times as fast; its errors are worded by PyYAML."""
    if yaml.__with_libyaml__:
        with suppress(yaml.YAMLError):
            return yaml.compose(text, Loader=yaml.CSafeLoader)
    return yaml.compose(text, Loader=yaml.SafeLoader)


class LinedDocument:
    """One YAML document: plain values, and the line on which each key or item begins."""

    def __init__(self, file: Path, *, shown: str) -> None:
        """Read a file; ``shown`` is its name in errors. Raises ``YamlMistake`` for what is not YAML, or a key twice."""
        self.shown = shown
        self.lines: dict[Where, int] = {(): 1}
        try:
            node = _composed(file.read_text(encoding="utf-8"))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise YamlMistake(
                f"this is not YAML: {error.problem}.",
                hint=_TABS if "'\\t'" in str(error.problem) else _SYNTAX,
                file=shown,
                line=mark.line + 1 if mark else None,
            ) from error
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise YamlMistake(f"this is not YAML: {error}.", hint="Save it as UTF-8 text.", file=shown) from error
        except OSError as error:
            raise YamlMistake(f"the file cannot be read: {error.strerror}.", hint=_READABLE, file=shown) from error
        self._above: list[yaml.Node] = []
        self._values = SafeConstructor()
        self.value: Any = None if node is None else self._read(node, ())
        del self._values  # it holds all nodes

    def line_of(self, where: Where) -> int:
        """The line of a path; of its nearest parent, where the path itself was not written."""
        while where not in self.lines:
            where = where[:-1]
        return self.lines[where]

    def mistake(self, message: str, *, where: Where = (), hint: str | None = None) -> YamlMistake:
        """An error at a place of this document."""
        return YamlMistake(message, hint=hint, file=self.shown, line=self.line_of(where))

    def unknown_key(self, key: str, allowed: list[str], *, where: Where, inside: str) -> YamlMistake:
        """The error for a key that is not allowed, with the nearest one that is."""
        near = difflib.get_close_matches(key, allowed, n=1)
        known = f"Allowed are: {', '.join(allowed)}." if allowed else "Leave it out."
        hint = f"Did you mean {near[0]!r}? {known}" if near else known
        return self.mistake(f"there is no key {key!r} in {inside}.", where=where, hint=hint)

    def validated(self, model: type[_Model], value: Any, *, at: Where = ()) -> _Model:
        """``value``, which was written at ``at``, as a model; raises the topmost mistake of the file."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            details = error.errors(include_url=False)
            # A list is also "too short" when its only item is wrong: the mistake is the item's.
            inner = [d for d in details if not any(e["loc"][: len(d["loc"])] == d["loc"] and e != d for e in details)]
            mistakes = [self._mistake(model, one, at) for one in inner or details]
            raise min(mistakes, key=lambda mistake: mistake.line or 0) from error

    def _mistake(self, model: type[BaseModel], details: ErrorDetails, at: Where) -> YamlMistake:
        # Pydantic names the member of a union that it tried, too: no key of the file.
        loc = tuple(step for step in details["loc"] if isinstance(step, int) or "[" not in step)
        while loc and (*at, *loc) not in self.lines and details["type"] != "missing":
            loc = loc[:-1]
        where = (*at, *loc)
        if details["type"] == "extra_forbidden":
            return self.unknown_key(str(loc[-1]), _keys_at(model, loc[:-1]), where=where, inside=path_words(loc[:-1]))
        if details["type"] == "missing":
            message = f"{path_words(loc[:-1])} lacks the key {str(loc[-1])!r}."
            return self.mistake(message, where=where, hint=f"Write {loc[-1]}: ...")
        if details["type"] == "value_error":
            sentence, _, hint = str(details["ctx"]["error"]).partition("; ")
            hint = hint[:1].upper() + hint[1:] + "." if hint else ""
            return self.mistake(f"{path_words(loc)}: {sentence}.", where=where, hint=hint or None)
        if details["type"] == "string_pattern_mismatch" and details["ctx"]["pattern"] == VARIABLE:
            # Whoever mistakes it writes the secret itself: it is not repeated.
            message = f"{path_words(loc)}: this is not the name of an environment variable."
            return self.mistake(
                message, where=where, hint="Write a name, such as SHOP_URL; the value goes into it alone."
            )
        shown = repr(details["input"])
        shown = shown if len(shown) <= 60 else shown[:57] + "..."
        if details["type"] == "string_pattern_mismatch" and details["ctx"]["pattern"] in _NAMES:
            rule, hint = _name_rule(details["ctx"]["pattern"], str(details["input"]))
            return self.mistake(f"{path_words(loc)}: {shown} cannot be a name: {rule}.", where=where, hint=hint)
        message = details["msg"][:1].lower() + details["msg"][1:]
        return self.mistake(f"{path_words(loc)}: {shown} is wrong: {message}.", where=where)

    def _read(self, node: yaml.Node, where: Where) -> Any:
        self.lines.setdefault(where, node.start_mark.line + 1)
        if isinstance(node, yaml.CollectionNode):
            if node in self._above:
                line = node.start_mark.line + 1
                raise YamlMistake("an alias stands inside of what it names.", hint=_ALIAS, file=self.shown, line=line)
            self._above.append(node)
            try:
                if isinstance(node, yaml.MappingNode):
                    return self._mapping(node, where)
                return [self._read(item, (*where, index)) for index, item in enumerate(node.value)]
            finally:
                self._above.pop()
        try:
            return self._values.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            raise YamlMistake(
                f"{getattr(node, 'value', '')!r} cannot be read as {node.tag.rpartition(':')[2]}.",
                hint="Put it in quotes if it is a text.",
                file=self.shown,
                line=node.start_mark.line + 1,
            ) from error

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[Any, Any]:
        values: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            key = self._read(key_node, (*where, "<key>"))
            step = key if isinstance(key, str | int) else str(key)
            line = key_node.start_mark.line + 1
            if not isinstance(key, str | int | float | bool | None):
                raise YamlMistake("a key must be a word.", hint="Write key: value.", file=self.shown, line=line)
            if key in values:
                raise YamlMistake(
                    f"the key {key!r} is written twice.", hint="Keep one of them.", file=self.shown, line=line
                )
            self.lines[(*where, step)] = line
            values[key] = self._read(value_node, (*where, step))
        return values


def path_words(where: Where) -> str:
    """``quality[0].checks`` for a place in a document; ``the top level`` for all of it."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in where).lstrip(".")
    return text or "the top level"


def _name_rule(pattern: str, given: str) -> tuple[str, str]:
    """What a name of this pattern is made of, and one that comes near to what was given."""
    most = _NAMES[pattern]
    near = re.sub(r"[^a-z0-9]+", "_", given.lower()).lstrip("0123456789_").rstrip("_")[:most]
    rule = "it begins with a lower case letter; lower case letters, digits and underscores may follow"
    return rule + (f", {most} characters at most" if most else ""), f"Write, for example, {near or 'my_shop'}."


def _keys_at(model: Any, where: Where) -> list[str]:
    """The keys that a model allows at a place inside it."""
    for step in where:
        if isinstance(step, int):
            continue
        field = getattr(model, "model_fields", {}).get(step)
        if field is None:
            return []
        model = _model_in(field.annotation)
    return list(getattr(model, "model_fields", {}))


def _model_in(annotation: Any) -> Any:
    if hasattr(annotation, "model_fields"):
        return annotation
    for argument in (*getattr(annotation, "__args__", ()), *getattr(annotation, "__metadata__", ())):
        found = _model_in(argument)
        if found is not None:
            return found
    return None
