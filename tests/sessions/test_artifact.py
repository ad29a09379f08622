"""artifact.json and the folder around it: read whole and unharmed, or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import ArtifactError
from rdu_batch.sessions.artifact import (
    ARTIFACT_FILE,
    Artifact,
    LocalArtifact,
    sealed,
)
from rdu_batch.sessions.artifact_store import (
    fetch_artifact,
    folder_entries,
    publish_artifact,
    read_artifact,
)
from rdu_batch.storage.store import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture
def source(tmp_path: Path, artifact_of: Callable[..., LocalArtifact]) -> LocalArtifact:
    """Three files, one of them in a folder below."""
    folder = tmp_path / "made"
    (folder / "more").mkdir(parents=True)
    (folder / "weights.safetensors").write_bytes(bytes(range(256)) * 50)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "more" / "note.txt").write_text("hello")
    return artifact_of(folder, layouts={"a.weight": "transposed"})


@pytest.fixture
def published(source: LocalArtifact, tmp_path: Path) -> Artifact:
    """The same, published to a local folder."""
    return publish_artifact(source.artifact, source.folder, str(tmp_path / "out"))


def test_what_was_published_is_read_back(published: Artifact, source: LocalArtifact) -> None:
    """Every value, and the digest is that of the file's bytes."""
    found = read_artifact(published.url)
    assert found == published
    assert replace(found, digest="", url="") == replace(source.artifact, digest="", url="")
    assert found.digest.startswith("sha256:")
    assert len(found.digest) == len("sha256:") + 64


def test_a_local_artifact_is_used_where_it_is(published: Artifact) -> None:
    """Whether written as a path or as a file URL."""
    for url in (published.url, f"file://{published.url}"):
        local = fetch_artifact(url)
        assert str(local.folder) == published.url
        assert local.path("more/note.txt").read_text() == "hello"


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b"\x01" + path.read_bytes()[1:]),
        lambda path: path.write_bytes(path.read_bytes()[:-1]),
        lambda path: path.write_bytes(path.read_bytes() + b"x"),
        lambda path: path.unlink(),
    ],
    ids=["one byte", "cut", "longer", "gone"],
)
def test_a_damaged_file_is_found_before_anything_is_used(
    published: Artifact, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    """And named."""
    damage(tmp_path / "out" / "weights.safetensors")
    with pytest.raises(ArtifactError, match=r"weights\.safetensors"):
        fetch_artifact(published.url)


def test_a_folder_without_artifact_json_is_no_artifact(tmp_path: Path) -> None:
    """The error says how to make one."""
    with pytest.raises(ArtifactError, match=r"rdu-batch compile"):
        read_artifact(str(tmp_path))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["geometry", "max_seq_length"], "many"),
        (["geometry", "dtype"], "int7"),
        (["files"], {"../outside": {"size_bytes": 1, "sha256": "0"}}),
        (["files"], {"/etc/passwd": {"size_bytes": 1, "sha256": "0"}}),
        (["files"], []),
        (["target"], None),
    ],
)
def test_a_wrong_value_in_artifact_json_is_refused(
    published: Artifact, path: list[str], value: Any
) -> None:
    """Among them names that would lead out of the folder."""
    document = json.loads(published.to_bytes())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    del document["sha256"]
    with pytest.raises(ArtifactError, match="damaged"):
        Artifact.from_bytes(sealed(document), url="here")


@pytest.mark.parametrize("number", [b"64", b"80", b"16"])
def test_one_changed_number_in_artifact_json_is_found(published: Artifact, number: bytes) -> None:
    """Each decides how much memory the graphs read and write."""
    content = published.to_bytes()
    assert Artifact.from_bytes(content, url="here").to_bytes() == content
    assert content.count(number) >= 1
    with pytest.raises(ArtifactError, match="edited"):
        Artifact.from_bytes(content.replace(number, b"928", 1), url="here")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"\xff"])
def test_what_is_no_description_is_refused(content: bytes) -> None:
    """With the place in the message."""
    with pytest.raises(ArtifactError, match=r"here/artifact\.json"):
        Artifact.from_bytes(content, url="here")


def test_an_unknown_version_is_refused(published: Artifact) -> None:
    """Rather than guessed at."""
    document = json.loads(published.to_bytes()) | {"version": 99}
    with pytest.raises(ArtifactError, match="99"):
        Artifact.from_bytes(json.dumps(document).encode(), url="here")


def test_a_remote_artifact_is_fetched_once_and_repaired_when_damaged(
    source: LocalArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second fetch does not need the store's files; a damaged copy is fetched again."""
    monkeypatch.setenv("RDU_BATCH_CACHE", str(tmp_path / "cache"))
    url = f"memory://artifacts/{tmp_path.name}"
    artifact = publish_artifact(source.artifact, source.folder, url)
    first = fetch_artifact(url)
    assert first.artifact == artifact
    assert first.folder.is_relative_to(tmp_path / "cache")
    assert first.path("empty.txt").read_bytes() == b""

    first.path("more/note.txt").write_text("hacked")
    assert fetch_artifact(url).path("more/note.txt").read_text() == "hello"

    for name in artifact.files:
        open_store(url).delete(name)
    assert fetch_artifact(url).folder == first.folder

    first.path("more/note.txt").write_text("hacked")
    with pytest.raises(ArtifactError, match="incomplete"):
        fetch_artifact(url)
    assert [path.name for path in first.folder.parent.iterdir() if path.is_dir()] == []


def test_a_remote_artifact_with_other_bytes_is_refused(
    source: LocalArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And leaves nothing in the cache that could be taken for it."""
    monkeypatch.setenv("RDU_BATCH_CACHE", str(tmp_path / "cache"))
    url = f"memory://artifacts/{tmp_path.name}"
    publish_artifact(source.artifact, source.folder, url)
    open_store(url).put_whole("more/note.txt", b"hallo")
    with pytest.raises(ArtifactError, match=r"more/note\.txt"):
        fetch_artifact(url)
    assert not [path for path in (tmp_path / "cache" / "artifacts").iterdir() if path.is_dir()]


def test_artifact_json_is_written_last(
    source: LocalArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So an interrupted publication leaves no artifact."""
    (source.folder / "weights.safetensors").unlink()
    with pytest.raises(Exception, match="weights"):
        publish_artifact(source.artifact, source.folder, str(tmp_path / "out"))
    assert not (tmp_path / "out" / ARTIFACT_FILE).exists()


def test_an_artifact_is_read_without_importing_torch() -> None:
    """The driver reads one to make a plan."""
    code = "import sys, rdu_batch.sessions.artifact_store; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_whole_artifact_of_the_same_settings_is_not_written_over(
    published: Artifact, source: LocalArtifact, tmp_path: Path
) -> None:
    """Two compiles raced: the second takes what the first published, though its files differ."""
    out = tmp_path / "out"
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    (source.folder / "more" / "note.txt").write_text("other")
    late = replace(source.artifact, files=folder_entries(source.folder))
    assert publish_artifact(late, source.folder, str(out)) == published
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    fetch_artifact(str(out))


def test_an_artifact_of_other_settings_is_not_written_over(
    published: Artifact, source: LocalArtifact
) -> None:
    """Even when it was not there when the compile began."""
    other = replace(source.artifact, settings_digest="sha256:1")
    with pytest.raises(ArtifactError, match="another artifact"):
        publish_artifact(other, source.folder, published.url)
    assert fetch_artifact(published.url).artifact == published


def test_an_artifact_that_appears_while_files_are_written_is_not_left_mixed(
    source: LocalArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other process's description does not fit this one's files, so it must go."""
    url = str(tmp_path / "out")
    store = open_store(url)

    class Late(type(store)):  # type: ignore[misc]
        """The other process publishes just before this one does."""

        def create_once(self, name: str, content: bytes) -> bool:
            document = json.loads(content)
            document["files"]["empty.txt"]["sha256"] = "0" * 64
            self.put_whole(name, json.dumps(document).encode())
            return bool(super().create_once(name, content))

    monkeypatch.setattr("rdu_batch.storage.store.open_store", Late)
    with pytest.raises(ArtifactError, match="at the same time"):
        publish_artifact(source.artifact, source.folder, url)
    assert not store.exists(ARTIFACT_FILE)


def test_a_damaged_artifact_is_published_again(
    published: Artifact, source: LocalArtifact, tmp_path: Path
) -> None:
    """In place of its own stale description."""
    (tmp_path / "out" / "weights.safetensors").write_bytes(b"damaged")
    assert publish_artifact(source.artifact, source.folder, published.url) == published
    assert fetch_artifact(published.url).artifact == published


def test_a_store_without_create_once_gets_its_artifact(
    source: LocalArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a plain write, after the look that is possible there."""
    from rdu_batch.errors import CreateOnceUnsupported
    from rdu_batch.storage.local_store import LocalStore

    def refuse(self: LocalStore, name: str, content: bytes) -> bool:
        raise CreateOnceUnsupported(name)

    monkeypatch.setattr(LocalStore, "create_once", refuse)
    publish_artifact(source.artifact, source.folder, str(tmp_path / "out"))
    fetch_artifact(str(tmp_path / "out"))


def test_what_a_killed_download_left_is_removed(
    source: LocalArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the same artifact only: another's download may be running."""
    monkeypatch.setenv("RDU_BATCH_CACHE", str(tmp_path / "cache"))
    url = f"memory://artifacts/{tmp_path.name}"
    digest = publish_artifact(source.artifact, source.folder, url).digest.removeprefix("sha256:")
    cache = tmp_path / "cache" / "artifacts"
    for name in (f".fetch-{digest}-abc", ".fetch-other-abc"):
        (cache / name).mkdir(parents=True, mode=0o700)
    fetch_artifact(url)
    folders = sorted(path.name for path in cache.iterdir() if path.is_dir())
    assert folders == [".fetch-other-abc", digest]


@pytest.mark.parametrize("style", ["a file", "writable by others"])
def test_a_cache_that_cannot_be_private_is_refused(
    style: str, source: LocalArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Naming the folder and the variable."""
    monkeypatch.setenv("RDU_BATCH_CACHE", str(tmp_path / "cache"))
    url = f"memory://artifacts/{tmp_path.name}"
    publish_artifact(source.artifact, source.folder, url)
    if style == "a file":
        (tmp_path / "cache").write_text("")
    else:
        (tmp_path / "cache" / "artifacts").mkdir(parents=True)
        (tmp_path / "cache" / "artifacts").chmod(0o777)
    with pytest.raises(ArtifactError, match=r"cache/artifacts.*RDU_BATCH_CACHE"):
        fetch_artifact(url)


def test_a_store_that_fails_during_a_download_is_an_artifact_error(
    source: LocalArtifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So the job ends with the exit code of artifacts, and the cause is said."""
    monkeypatch.setenv("RDU_BATCH_CACHE", str(tmp_path / "cache"))
    url = f"memory://artifacts/{tmp_path.name}"
    publish_artifact(source.artifact, source.folder, url)
    open_store(url).put_whole("weights.safetensors", b"short")
    with pytest.raises(ArtifactError, match="cannot be fetched"):
        fetch_artifact(url)


FETCH = """
import sys
from rdu_batch.sessions import artifact_store
from rdu_batch.storage.store import open_store
url, num_reads = sys.argv[1], 0
store_class = type(open_store(url))
read_range = store_class.read_range
def counted(self, *arguments):
    global num_reads
    num_reads += 1
    return read_range(self, *arguments)
store_class.read_range = counted
print("ready", flush=True)
sys.stdin.readline()
local = artifact_store.fetch_artifact(url)
print(num_reads, local.folder)
"""


def test_two_processes_that_fetch_at_once_download_once(
    source: LocalArtifact, tmp_path: Path
) -> None:
    """One reads every file, the other waits for it and reads none."""
    shared = tmp_path / "shared"
    publish_artifact(source.artifact, source.folder, str(shared))
    environment = {**os.environ, "RDU_BATCH_CACHE": str(tmp_path / "cache")}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    running = [
        subprocess.Popen(
            [sys.executable, "-c", FETCH, f"simplecache::file://{shared}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for _ in range(2)
    ]
    for process in running:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in running:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.communicate()[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted(int(num_reads) for num_reads, _ in said) == [0, 2]
    assert said[0][1] == said[1][1]
    folders = [path for path in (tmp_path / "cache" / "artifacts").iterdir() if path.is_dir()]
    assert folders == [tmp_path / "cache" / "artifacts" / said[0][1].rpartition("/")[2]]
