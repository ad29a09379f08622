"""Manifests as YAML text. Pure.

Promises: what is a text stays one for readers of YAML 1.1 and of YAML 1.2, which disagree on what
is a number. Does not: know what a manifest means.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

Manifest = dict[str, Any]

#: What some reader takes for a number or for true and false, and PyYAML writes without quotes.
_READ_AS_VALUE: Final = re.compile(
    r"[-+]?(\.[0-9]+|[0-9][0-9_]*(\.[0-9_]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?0[oxb][0-9a-fA-F_]+|[-+]?\.(inf|Inf|INF)|[yYnN]"
)


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks; nothing as an alias."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    if _READ_AS_VALUE.fullmatch(text):
        style = "'"
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def to_yaml(manifests: Sequence[Manifest]) -> str:
    """YAML documents, one after the other."""
    return "---\n".join(
        yaml.dump(manifest, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        for manifest in manifests
    )
