"""From the input URLs of a spec to the files they mean, in a fixed order.

A URL is a file, a folder (its JSON lines and Parquet files, at any depth), or a pattern with ``*``,
``?``, ``[...]`` (within one folder's names) or ``**`` (any folders). Names that begin with ``.`` or
``_`` are left out, as Spark and Hive do, unless the URL spells the mark out: so that an output
folder of another job can be an input without its ``_run/``.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from rdu_batch.dataset.formats import (
    COMPRESSIONS,
    OF_FOLDERS,
    READABLE,
    InputFormat,
    format_of,
)
from rdu_batch.dataset.input_store import reading_input
from rdu_batch.errors import InputError, ObjectMissing
from rdu_batch.storage.store import ObjectStat, Store, open_object, open_store
from rdu_batch.storage.urls import split_pattern

if TYPE_CHECKING:
    from collections.abc import Sequence

_WILD = re.compile(r"[*?\[]")
_HIDDEN = (".", "_")
#: Kinds of files that a folder's note names one by one.
_MAX_KINDS = 5
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
    return _list_folder(url)


def _list_folder(url: str) -> list[ListedFile]:
    store = open_store(url)
    objects = store.list_objects("", recursive=True)
    visible, hidden = [], []
    other_kinds: Counter[str] = Counter()
    for name, stat in objects:
        form = format_of(name)
        if form is None or not form.is_meant_by_folder:
            if not _is_hidden(name):
                other_kinds[_kind_of(name)] += 1
        elif _is_hidden(name):
            hidden.append(name)
        else:
            visible.append(_listed(store, name, stat, form))
    if not visible:
        raise InputError(_why_empty(url, len(objects), other_kinds))
    if other_kinds:
        _LOG.warning(
            "%s: left out %s of other kinds%s; of a folder, %s are inputs; a name or a pattern "
            "takes .json and .txt, too",
            *(url, _files(other_kinds.total()), _kinds(other_kinds), OF_FOLDERS),
        )
    _note_left_out(url, hidden)
    return visible


def _why_empty(url: str, num_objects: int, other_kinds: Counter[str]) -> str:
    """What to say of a URL that is no file and no folder with inputs."""
    if not num_objects:
        return (
            f"there is no file at {url}, and no folder with files; correct the URL, or run again "
            "when its inputs are there"
        )
    held = f"{_files(num_objects, 'other file')}{_kinds(other_kinds)}"
    return (
        f"there is no input in the folder {url}: it holds {held}; of a folder, {OF_FOLDERS} are "
        f"inputs; wanted such files, or the name or a pattern of {READABLE} (names that begin with "
        ". or _ are left out)"
    )


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
            f"no file matches {url}, of {_files(len(objects))} under {base}"
            f"{_hint_of(parts, [name for name, _ in objects])} (names that begin with . or _ match "
            "only a pattern that spells this out)"
        )
    return matched


def _hint_of(parts: list[str], names: Sequence[str]) -> str:
    """What to say of a pattern that matches no file: whether it matches folders."""
    for name in names:
        folders = name.split("/")[:-1]
        for depth in range(1, len(folders) + 1):
            if _matches(folders[:depth], parts, hidden=False):
                folder = "/".join(folders[:depth])
                return (
                    f"; it matches folders, such as {folder}: go on with /*.jsonl for the files in "
                    "them, or with /**/*.jsonl for those at any depth"
                )
    return "" if "**" in parts else "; * stays within one folder, ** stands for any folders"


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


def _files(number: int, noun: str = "file") -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _kind_of(name: str) -> str:
    """How a file's name ends: ``.csv``, ``.csv.gz``."""
    stem, dot, end = name.rpartition("/")[2].lower().rpartition(".")
    if not dot or not stem:
        return "no ending"
    if end in COMPRESSIONS and "." in stem:
        return f".{stem.rpartition('.')[2]}.{end}"
    return f".{end}"


def _kinds(kinds: Counter[str]) -> str:
    """The most frequent kinds with their numbers, in brackets; nothing where there are none."""
    most = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))
    shown = [f"{kind} {number:,}" for kind, number in most[:_MAX_KINDS]]
    more = sum(number for _, number in most[_MAX_KINDS:])
    shown += [f"others {more:,}"] if more else []
    return f" ({', '.join(shown)})" if shown else ""


def _note_left_out(url: str, names: Sequence[str]) -> None:
    if names:
        _LOG.warning(
            "%s: left out %s whose path has a part that begins with . or _, such as %s",
            url,
            _files(len(names)),
            names[0],
        )
