"""One job, the same bytes of parts and dead letters over every store, as input and as output."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import InputError
from rdu_batch.job.spec import JobSpec
from rdu_batch.report.progress import Silent
from rdu_batch.runner.run_job import run_job
from rdu_batch.runner.verify import verify_output
from rdu_batch.storage.options_in_force import use_storage_options
from rdu_batch.storage.store import open_store
from tests.storage.file_site import REPO, serve_files

if TYPE_CHECKING:
    from pathlib import Path

    from tests.storage.conftest import Place

PlaceOn = Callable[[str], "Place"]

#: Names that a URL would have to escape, a dead row, blank lines, no newline at the end.
INPUTS = {
    "a b#1.jsonl": b'{"id": 1, "text": "one"}\nnot JSON\n\n{"id": 3, "text": "gr\xc3\xbcn"}\n',
    "deep/50%25.jsonl": b"".join(b'{"id": %d, "text": "row %d"}\n' % (n, n) for n in range(40)),
    "deep/z.jsonl": b'{"id": "last", "text": "no newline"}',
}
ROWS = 44
WRITABLE = [
    pytest.param("s3", marks=pytest.mark.s3),
    pytest.param("seaweed", marks=pytest.mark.s3),
    *(pytest.param(kind, marks=pytest.mark.servers) for kind in ("azure", "gcs", "sftp", "webdav")),
]


def spec_of(
    inputs: str,
    output: str,
    options: dict[str, Any] | None = None,
    urls: list[str] | None = None,
    **more: Any,
) -> JobSpec:
    """The job: a few rows a shard, so that there are several."""
    both = {"storage_options": options or {}}
    return JobSpec.model_validate(
        {
            "version": 1,
            "name": "same-bytes",
            "input": {"urls": urls or [f"{inputs}/"], "id_field": "id", **both},
            "prompt": {"field": "text"},
            "session": {"kind": "fake"},
            "generation": {"max_new_tokens": 6},
            "output": {
                "url": output,
                "rows_per_shard": 15,
                "single_writer": output.startswith("webdav"),
                **both,
            },
            "limits": {"max_dead_rows": "10%"},
            **more,
        }
    )


def rows_of(output: str) -> dict[str, bytes]:
    """The bytes of all parts and dead letters by name."""
    store = open_store(output)
    names = [name for name in store.list_names("") if name.startswith(("part-", "dead-"))]
    return {name: store.read(name) for name in names}


def run(spec: JobSpec) -> dict[str, bytes]:
    """Run a job to its end, and verify what it left."""
    summary = run_job(spec, executor="inline", progress=Silent())
    assert (summary.exit, summary.rows, summary.dead) == (0, ROWS, 1)
    assert verify_output(open_store(spec.output.url)).problems == []
    return rows_of(spec.output.url)


@pytest.fixture(scope="module")
def local_rows(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the job writes over local files."""
    folder = tmp_path_factory.mktemp("local")
    inputs = open_store(str(folder / "in"))
    for name, content in INPUTS.items():
        inputs.put_whole(name, content)
    rows = run(spec_of(str(folder / "in"), str(folder / "out")))
    assert sorted(rows) == ["dead-00000-of-00003.jsonl"] + [
        f"part-0000{shard}-of-00003.jsonl" for shard in range(3)
    ]
    assert b"".join(rows.values()).count(b"\n") == ROWS
    return rows


@pytest.mark.parametrize("kind", WRITABLE)
def test_every_store_gives_the_bytes_of_a_local_run(
    kind: str, place_on: PlaceOn, local_rows: dict[str, bytes]
) -> None:
    """Input and output lie in the same store; nothing of its own gets into the rows."""
    place = place_on(kind)
    spec = spec_of(f"{place.url}/in", f"{place.url}/out", place.options)
    use_storage_options(spec)
    inputs = open_store(f"{place.url}/in")
    for name, content in INPUTS.items():
        inputs.put_whole(name, content)
    assert run(spec) == local_rows
    again = run_job(spec, executor="inline", progress=Silent())
    assert again.state == "already complete"


@pytest.mark.parametrize("kind", ["http", "hf"])
def test_a_source_that_is_only_read_gives_the_bytes_of_a_local_one(
    kind: str, tmp_path: Path
) -> None:
    """By the names of the files: a plain web server has no listing. The output is local."""
    pytest.importorskip("aiohttp")
    names = ["a.jsonl", "deep/z.jsonl"]
    files = dict(zip(names, (INPUTS["a b#1.jsonl"], INPUTS["deep/50%25.jsonl"]), strict=True))
    local = open_store(str(tmp_path / "in"))
    for name, content in files.items():
        local.put_whole(name, content)
    with serve_files(files) as site:
        folders = {"local": local.url, "http": site.url, "hf": f"hf://datasets/{REPO}"}
        options = {"endpoint": site.url, "token": False} if kind == "hf" else {}
        rows = {}
        for source in ("local", kind):
            spec = spec_of(
                "",
                str(tmp_path / source / "out"),
                urls=[f"{folders[source]}/{name}" for name in names],
                options=options if source == kind else {},
            )
            assert run_job(spec, executor="inline", progress=Silent()).rows == ROWS - 1
            rows[source] = rows_of(spec.output.url)
    assert rows["local"] == rows[kind]


@pytest.mark.s3
def test_a_pinned_input_that_changed_ends_the_job_with_exit_4(s3_url: str) -> None:
    """The plan holds the etag; other bytes of the same size are refused when they are read."""
    inputs = open_store(f"{s3_url}/in")
    inputs.put_whole("a.jsonl", b'{"text": "one"}\n')
    spec = spec_of(f"{s3_url}/in", f"{s3_url}/out")
    from rdu_batch.dataset.planning import plan_of_output
    from rdu_batch.runner.identity import identify_job

    identity = identify_job(spec)
    plan_of_output(open_store(spec.output.url), spec, identity.artifact_digest)
    inputs.put_whole("a.jsonl", b'{"text": "two"}\n')
    with pytest.raises(InputError, match="changed") as caught:
        run_job(spec, executor="inline", progress=Silent())
    assert caught.value.exit_code == 4


@pytest.mark.servers
@pytest.mark.ray
def test_ray_workers_open_a_store_with_the_options_of_the_job(
    place_on: PlaceOn, local_rows: dict[str, bytes], tmp_path: Path
) -> None:
    """Workers and their session processes read and write over WebDAV, with a password."""
    place = place_on("webdav")
    spec = spec_of(
        f"{place.url}/in", f"{place.url}/out", place.options, workers={"count": 2, "cpus": 1}
    )
    use_storage_options(spec)
    inputs = open_store(f"{place.url}/in")
    for name, content in INPUTS.items():
        inputs.put_whole(name, content)
    job = tmp_path / "job.json"
    job.write_text(json.dumps(spec.model_dump(mode="json")))
    from tests.storage.test_runs_on_s3 import rdu_batch

    code, summary, errors = rdu_batch("run", job, "--address", "local")
    assert (code, summary["rows"], summary["dead"]) == (0, ROWS, 1), errors
    assert rows_of(spec.output.url) == local_rows
