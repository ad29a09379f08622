"""YAML text to plain values, with the place of every key and every leaf.

Promises: a scalar means what YAML 1.2 and JSON say: only ``true`` and ``false`` are booleans, only
``null``, ``~`` and nothing are null, dates are text, ``010`` is ten and ``1e3`` is a number; so
``yes``, ``no``, ``on``, ``12:30`` and ``0.1%`` are text. A duplicate key is a problem that names
both lines. Does not: know what a job file should hold (``spec``), or read files.

Refused with their line, since a job file needs none of them: aliases, merge keys, tags other than
those of JSON, keys that are not text, half surrogate pairs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Where a value is in the tree: keys of mappings and indices of lists.
Path = tuple[str | int, ...]

_TAG = "tag:yaml.org,2002:"
_HIDDEN_BREAKS = re.compile("[\x85\u2028\u2029]")
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, order=True)
class Place:
    """Where something was written: a line of a file, or an option of the command line."""

    #: 0 for the file, above it the options in their order; problems are sorted by it.
    rank: int
    #: 1-based line; 0 for an option.
    line: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}" if self.line else self.source


@dataclass(frozen=True)
class Problem:
    """One mistake: where it is, what it is about, and a sentence."""

    place: Place
    path: Path
    text: str

    def __str__(self) -> str:
        path = path_text(self.path)
        return f"{self.place}: {path}: {self.text}" if path else f"{self.place}: {self.text}"


@dataclass
class Source:
    """A tree of plain values, the place of each, and the problems met while reading it."""

    value: Any
    places: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place_of(self, path: Path) -> Place:
        """The place of this value, or of the nearest mapping or list around it."""
        while path not in self.places and path:
            path = path[:-1]
        return self.places[path]


def path_text(path: Path) -> str:
    """A path as ``--set`` takes it, with list indices in brackets: ``input.urls[0]``."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if part.isprintable() and part else f".{part!r}"
    return text.removeprefix(".")


def read_yaml(text: str, place: Place) -> Source:
    """Read one YAML document.

    A text that is no YAML at all has the value None and one problem. ``place`` is where the text
    begins; with line 0 everything in it has that one place.
    """
    source = Source(None, {(): place})
    hidden = _HIDDEN_BREAKS.search(text)
    if hidden is not None:
        # YAML 1.1 readers fold these like newlines, which would change a wanted string.
        at = _below(place, text.count("\n", 0, hidden.start()))
        escape = f"\\u{ord(hidden[0]):04x}"
        found = f"found the character U+{ord(hidden[0]):04X}, which editors do not show"
        problem = f'{found}; wanted it as "{escape}" in double quotes'
        source.problems.append(Problem(at, (), problem))
        return source
    try:
        node = _Loader(text).get_single_node()
        if node is not None:
            source.value = _Builder(source, place).value_of(node, ())
    except yaml.MarkedYAMLError as error:
        source.problems.append(_syntax_problem(error, text, place))
    except yaml.reader.ReaderError as error:
        at = _below(place, text.count("\n", 0, error.position))
        found = f"found the control character U+{int(error.character):04X}"
        source.problems.append(Problem(at, (), f"{found}; wanted an escape in double quotes"))
    except RecursionError:
        source.problems.append(Problem(place, (), "found too many levels; wanted a job file"))
    return source


def _below(place: Place, num_lines: int) -> Place:
    return Place(place.rank, place.line + num_lines, place.source) if place.line else place


def _syntax_problem(error: yaml.MarkedYAMLError, text: str, place: Place) -> Problem:
    mark = error.problem_mark or error.context_mark
    line = mark.line if mark is not None else 0
    found = " ".join(part for part in (error.context, error.problem) if part)
    lines = text.split("\n")
    hint = ""
    if line < len(lines) and "{date}" in lines[line]:
        hint = '; did you mean to put the text with {date} in quotes: "..."'
    return Problem(_below(place, line), (), f"found {found}; wanted valid YAML{hint}")


class _Loader(yaml.SafeLoader):
    """A safe loader whose plain scalars mean what YAML 1.2 says, and that has no aliases."""

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"the alias *{event.anchor}; write its value out", event.start_mark
            )
        node: Node | None = super().compose_node(parent, index)
        return node


_FLOAT = (
    r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_RESOLVERS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
)
# A table of its own, so that the YAML 1.1 rules of the base class are gone.
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(rf"(?:{_pattern})\Z"), list(_first))


class _NotThisTag(ValueError):
    """A scalar's text is not of the type that its tag says."""


class _Builder:
    """Turns nodes into values and fills the places and problems of a source."""

    def __init__(self, source: Source, place: Place) -> None:
        self._source = source
        self._start = place

    def value_of(self, node: Node, path: Path, place: Place | None = None) -> Any:
        """The plain value of a node; ``place`` is the place of its key, where it has one."""
        self._source.places[path] = place or self._place_of(node)
        if isinstance(node, MappingNode):
            self._check_tag(node, "map", path)
            return self._mapping_of(node, path)
        if isinstance(node, SequenceNode):
            self._check_tag(node, "seq", path)
            return [self.value_of(item, (*path, i)) for i, item in enumerate(node.value)]
        return self._scalar_of(node, path)

    def _place_of(self, node: Node) -> Place:
        return _below(self._start, node.start_mark.line)

    def _add(self, place: Place, path: Path, text: str) -> None:
        self._source.problems.append(Problem(place, path, text))

    def _check_tag(self, node: Node, name: str, path: Path) -> None:
        if node.tag != _TAG + name:
            wanted = "wanted no tag, or one of JSON's types"
            self._add(self._place_of(node), path, f"found the tag {node.tag}; {wanted}")

    def _mapping_of(self, node: MappingNode, path: Path) -> dict[str, Any]:
        values: dict[str, Any] = {}
        key_places: dict[str, Place] = {}
        for key_node, value_node in node.value:
            place = self._place_of(key_node)
            if not isinstance(key_node, ScalarNode) or key_node.tag != _TAG + "str":
                shown = getattr(key_node, "value", "")
                found = (
                    f"found the key {shown}" if isinstance(shown, str) else "found a list or map"
                )
                self._add(place, path, f"{found}; wanted a key that is text")
                continue
            key = key_node.value
            if key in values:
                first = f"found this key twice, first at {key_places[key]}"
                self._add(place, (*path, key), f"{first}; wanted it once")
                continue
            key_places[key] = place
            values[key] = self.value_of(value_node, (*path, key), place)
        return values

    def _scalar_of(self, node: Node, path: Path) -> Any:
        text: str = node.value
        kind = str(node.tag).removeprefix(_TAG)
        try:
            return _scalar(kind, text)
        except _NotThisTag:
            self._check_tag(node, "str", path)
        except ValueError as error:
            self._add(self._place_of(node), path, str(error))
        return text


def _scalar(kind: str, text: str) -> Any:
    if kind == "str":
        if _SURROGATE.search(text):
            wanted = 'wanted the character itself, or "\\U" and eight digits'
            raise ValueError(f"found half of a surrogate pair; {wanted}")
        return text
    if kind == "null":
        return None
    try:
        if kind == "bool":
            return {"true": True, "false": False}[text.lower()]
        if kind == "int":
            return int(text, _BASES.get(text[:2], 10))
        if kind == "float":
            return float(text.replace(".inf", "inf").replace(".nan", "nan"))
    except (ValueError, KeyError):
        raise ValueError(f"found {text[:40]}, which is no {kind} this program takes") from None
    raise _NotThisTag(kind)


_BASES: Mapping[str, int] = {"0o": 8, "0x": 16}
