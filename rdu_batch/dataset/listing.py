"""From the input URLs of a spec to the files they mean, in a fixed order.

A URL is a file, a folder (its JSON lines and Parquet files, at any depth), or a pattern with ``*``,
``?``, ``[...]`` (within one folder's names) or ``**`` (any folders). Names that begin with ``.`` or
``_`` are left out, as Spark and Hive do, unless the URL spells the mark out: so that an output
folder of another job can be an input without its ``_run/``.
"""

from __future__ import annotations

import logging
import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from rdu_batch.dataset.formats import OF_FOLDERS, READABLE, InputFormat, format_of
from rdu_batch.dataset.input_store import reading_input
from rdu_batch.errors import InputError, ObjectMissing
from rdu_batch.storage.store import ObjectStat, Store, open_object, open_store
from rdu_batch.storage.urls import split_pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

_WILD = re.compile(r"[*?\[]")
_HIDDEN = (".", "_")
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ListedFile:
    """An input file as the store lists it."""

    url: str
    #: Relative to the folder of its URL that has no wildcard.
    path: str
    size_bytes: int
    etag: str | None
    #: The URL of the store that lists it, and its name there.
    folder: str
    name: str
    #: Of ``formats.FORMATS``.
    format: str


def list_inputs(urls: Sequence[str]) -> list[ListedFile]:
    """List the files of all URLs: the URLs' order is kept, files of one URL are sorted by path.

    Raises:
        InputError: a URL means no file, the same file comes twice, a file cannot be read here, or
            its store cannot be opened or listed.
    """
    listed: list[ListedFile] = []
    # Files of one URL cannot be doubled: of a million of them nothing needs to be remembered.
    first_url: dict[str, str] = {}
    for url in urls:
        with reading_input(url):
            files = _list_url(url)
        if len(urls) > 1:
            _note_doubled(files, url, first_url)
        listed += files
    return listed


def _note_doubled(files: Sequence[ListedFile], url: str, first_url: dict[str, str]) -> None:
    for file in files:
        if file.url in first_url:
            raise InputError(
                f"{file.url} is an input twice: by {first_url[file.url]} and by {url}; "
                "each file may be an input once, narrow one of the two"
            )
        first_url[file.url] = url


def _list_url(url: str) -> list[ListedFile]:
    if not url.endswith("/"):
        found = _single_file(url)
        if found is not None:
            return [found]
    if _WILD.search(url):
        return _list_pattern(url)
    store = open_store(url)
    objects = store.list_objects("", recursive=True)
    visible, hidden = [], []
    for name, stat in objects:
        form = format_of(name)
        if form is None or not form.is_meant_by_folder:
            continue
        if _is_hidden(name):
            hidden.append(name)
        else:
            visible.append(_listed(store, name, stat, form))
    if not visible:
        held = f"it holds {len(objects)} other files" if objects else "there is nothing there"
        raise InputError(
            f"{url} means no input: {held}; of a folder, {OF_FOLDERS} are inputs; wanted such "
            f"files, or the name or a pattern of {READABLE} (names that begin with . or _ are left "
            "out)"
        )
    _note_left_out(url, hidden)
    return visible


def _single_file(url: str) -> ListedFile | None:
    store, name = open_object(url)
    if not name or name in (".", ".."):
        return None
    try:
        stat = store.stat(name)
    except ObjectMissing:
        return None
    return _listed(store, name, stat, _readable_format(name, url))


def _list_pattern(url: str) -> list[ListedFile]:
    """List what a pattern matches. The base is what comes before the first part with a wildcard."""
    base, pattern = split_pattern(url)
    store = open_store(base)
    parts = pattern.split("/")
    objects = store.list_objects("", recursive=len(parts) > 1 or "**" in parts)
    matched, left_out = [], []
    for name, stat in objects:
        if _matches(name.split("/"), parts, hidden=False):
            matched.append(_listed(store, name, stat, _readable_format(name, store.join(name))))
        elif _matches(name.split("/"), parts, hidden=True):
            left_out.append(name)
    _note_left_out(url, left_out)
    if not matched:
        raise InputError(
            f"{url} means no input: none of the {len(objects)} files under {base} matches "
            "(names that begin with . or _ match only a pattern that spells this out)"
        )
    return matched


def _matches(names: list[str], parts: list[str], *, hidden: bool) -> bool:
    """Match a path part by part; ``**`` stands for any number of folders."""
    if not parts:
        return not names
    if parts[0] == "**" and len(parts) > 1:
        if _matches(names, parts[1:], hidden=hidden):
            return True
        return (
            bool(names)
            and _allows(names[0], "*", hidden)
            and _matches(names[1:], parts, hidden=hidden)
        )
    return (
        bool(names)
        and _allows(names[0], parts[0], hidden)
        and fnmatchcase(names[0], parts[0])
        and _matches(names[1:], parts[1:], hidden=hidden)
    )


def _allows(name: str, part: str, hidden: bool) -> bool:
    return hidden or not name.startswith(_HIDDEN) or part.startswith(name[0])


def _is_hidden(name: str) -> bool:
    return any(part.startswith(_HIDDEN) for part in name.split("/"))


def _listed(store: Store, name: str, stat: ObjectStat, form: InputFormat) -> ListedFile:
    url = store.join(name)
    return ListedFile(url, name, stat.size_bytes, stat.etag, store.url, name, form.name)


def _readable_format(name: str, url: str) -> InputFormat:
    form = format_of(name)
    if form is None:
        raise InputError(
            f"cannot read {url}: its name does not end as a format that is read ({READABLE}); "
            "convert or rename it, or leave it out with a narrower pattern or several URLs"
        )
    return form


def _note_left_out(url: str, names: Sequence[str]) -> None:
    if names:
        _LOG.warning(
            "%s: left out %d files whose path has a part that begins with . or _, such as %s",
            url,
            len(names),
            names[0],
        )
