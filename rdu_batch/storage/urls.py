"""URLs of folders and objects as text: their parts, their joins, and chains of drivers.

A chain such as ``simplecache::zip://in/a.jsonl::s3://bucket/x.zip`` is read through several
drivers. One of its links names the object: the first that has a path (``zip://in/a.jsonl``).
Does not: open anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PROTOCOL = re.compile(r"^[A-Za-z][A-Za-z0-9+.\-]*://")
_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class ChainedUrl:
    """A URL by the link that names the object; for most URLs that is all of it."""

    before: str
    link: str
    after: str

    @property
    def is_chain(self) -> bool:
        """Whether it is read through several drivers."""
        return bool(self.before or self.after)

    def with_link(self, link: str) -> str:
        """The same chain with another path in it."""
        return f"{self.before}{link}{self.after}"

    @property
    def root_length(self) -> int:
        """How much of the link is its protocol."""
        found = _PROTOCOL.match(self.link)
        return found.end() if found else 0


def parts_of(url: str) -> ChainedUrl:
    """Take a URL apart. A local path is one link, whatever is in it."""
    links = url.split("::")
    if len(links) == 1 or not re.match(r"^[A-Za-z][A-Za-z0-9+.\-]*(://|$)", links[0]):
        return ChainedUrl("", url, "")
    index = next((n for n, link in enumerate(links) if "://" in link), len(links) - 1)
    before = "".join(f"{link}::" for link in links[:index])
    after = "".join(f"::{link}" for link in links[index + 1 :])
    return ChainedUrl(before, links[index], after)


def join_url(folder_url: str, name: str) -> str:
    """The URL of an object in a folder; the folder's own for an empty name."""
    if not name:
        return folder_url
    parts = parts_of(folder_url)
    root = parts.link[: parts.root_length]
    path = parts.link[parts.root_length :].rstrip("/")
    return parts.with_link(f"{root}{path}/{name}" if path or not root else f"{root}{name}")


def split_object(url: str) -> tuple[str, str]:
    """The URL of the folder that holds an object, and the object's name in it."""
    parts = parts_of(url)
    root = parts.root_length
    link = parts.link.rstrip("/") if len(parts.link.rstrip("/")) >= root else parts.link
    slash = link.rfind("/", root)
    if slash < 0:
        return parts.with_link(link[:root] or "."), link[root:]
    return parts.with_link(link[:slash] or "/"), link[slash + 1 :]


def split_pattern(url: str) -> tuple[str, str]:
    """The URL of the folder below which a pattern matches, and the pattern from there on."""
    parts = parts_of(url)
    wild = _WILD.search(parts.link)
    slash = parts.link.rfind("/", 0, wild.start() if wild else 0)
    if slash < 0:
        return parts.with_link("."), parts.link
    return parts.with_link(parts.link[: slash + 1]), parts.link[slash + 1 :]


def lies_in(url: str, folder_url: str) -> bool:
    """Whether a URL is that of a folder, or of something in it or below it."""
    inner, outer = parts_of(url), parts_of(folder_url)
    if (inner.before, inner.after) != (outer.before, outer.after):
        return False
    folder, link = outer.link.rstrip("/"), inner.link.rstrip("/")
    return link == folder or link.startswith(f"{folder}/")
