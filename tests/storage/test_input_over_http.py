"""Inputs behind a driver that only reads, and how many requests the reading costs."""

from __future__ import annotations

import functools
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from rdu_batch.dataset.indexing import index_file
from rdu_batch.dataset.line_index import LongestRows
from rdu_batch.dataset.listing import list_inputs
from rdu_batch.dataset.planning import make_plan, save_plan
from rdu_batch.dataset.reader import RowReader
from rdu_batch.errors import InputError
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import open_store

MIB = 2**20
LINES = [b'{"text": "%07d %s"}' % (number, b"x" * 1000) for number in range(20_000)]
CONTENT = b"\n".join(LINES)


class Site:
    """A loopback server of one file; notes the byte ranges it was asked for."""

    def __init__(self) -> None:
        self.serves_ranges = True
        self.ranges: list[tuple[int, int]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.reply(200, CONTENT, with_body=False)

            def do_GET(self) -> None:
                asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
                if asked is None or not outer.serves_ranges:
                    self.reply(200, CONTENT)
                    return
                start, end = int(asked[1]), int(asked[2]) + 1
                outer.ranges.append((start, end))
                self.reply(206, CONTENT[start:end])

            def reply(self, status: int, content: bytes, *, with_body: bool = True) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if with_body:
                    self.wfile.write(content)

            def log_message(self, *args: object) -> None:
                del args

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/corpus/a.jsonl"


@pytest.fixture
def site() -> Iterator[Site]:
    """The server, running."""
    pytest.importorskip("aiohttp")
    site = Site()
    thread = threading.Thread(target=site.server.serve_forever, daemon=True)
    thread.start()
    yield site
    site.server.shutdown()
    thread.join(timeout=30)
    site.server.server_close()


def test_a_file_is_indexed_and_read_in_few_ranged_requests(site: Site) -> None:
    """Eight windows a request for long ranges, one for a short one, none for a cached one."""
    spec = JobSpec.model_validate_json(
        f"""{{"version": 1, "name": "test", "input": {{"urls": ["{site.url}"]}},
        "prompt": {{"field": "text"}}, "session": {{"kind": "fake"}},
        "output": {{"url": "memory://http-test/out"}}}}"""
    )
    output = open_store(spec.output.url)
    plan = save_plan(output, make_plan(spec, "sha256:0"))
    wanted = [(0, 8 * MIB), (8 * MIB, 16 * MIB), (16 * MIB, len(CONTENT))]
    assert site.ranges == wanted

    site.ranges.clear()
    reader = RowReader(output, plan)
    assert [row.line_bytes for row in reader.read_rows(0, len(LINES))] == LINES
    assert site.ranges == wanted

    site.ranges.clear()
    reader = RowReader(output, plan)
    for first in (5200, 5220, 5240):
        got = [row.line_bytes for row in reader.read_rows(first, first + 20)]
        assert got == LINES[first : first + 20]
    assert site.ranges == [(5 * MIB, 6 * MIB)]


def test_a_server_without_ranges_is_refused(site: Site) -> None:
    """Whole files in place of ranges would be wrong rows; the error says so."""
    site.serves_ranges = False
    [listed] = list_inputs([site.url])
    with pytest.raises(InputError, match="does not serve ranges"):
        index_file(listed, 0, LongestRows())


def test_a_folder_of_a_plain_web_server_is_its_files(tmp_path: Path) -> None:
    """Its page of links says no sizes, so each file is asked for its own."""
    (tmp_path / "a.jsonl").write_bytes(b'{"text": 1}\n')
    (tmp_path / "B.NDJSON").write_bytes(b'{"text": 2}\n{"text": 3}')
    (tmp_path / "notes.md").write_bytes(b"# no rows\n")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        found = [(file.path, file.size_bytes, file.format) for file in list_inputs([f"{url}/"])]
        assert found == [("B.NDJSON", 23, "jsonl"), ("a.jsonl", 12, "jsonl")]
        [file] = list_inputs([f"{url}/*.NDJSON"])
        assert index_file(file, 0, LongestRows()).num_rows == 2
    finally:
        server.shutdown()
        thread.join(timeout=30)
        server.server_close()
