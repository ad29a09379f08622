"""How fast inputs are indexed, planned and read, beside what the machine can do.

    python tests/benchmarks/reading.py [--megabytes 1024] [--files 1000000] [--folder FOLDER]

Each ratio is of two measurements of this run. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from pathlib import Path

from rdu_batch.dataset.indexing import Tasks, index_files
from rdu_batch.dataset.line_index import LongestRows
from rdu_batch.dataset.listing import list_inputs
from rdu_batch.dataset.local_counting import local_counting
from rdu_batch.dataset.planning import make_plan, plan_of_output
from rdu_batch.dataset.reader import RowReader
from rdu_batch.job.records import parse_row
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.store import open_store

REPEATS = 3
ROWS_READ = 300_000


def spec_of(url: str, output: Path) -> JobSpec:
    """A job over these inputs."""
    values = {
        "version": 1,
        "name": "reading",
        "input": {"urls": [url]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "output": {"url": str(output)},
    }
    return JobSpec.model_validate_json(json.dumps(values))


def write_lines(path: Path, num_bytes: int) -> None:
    """Rows of about 120 bytes."""
    rows = [
        json.dumps({"id": number, "text": "x" * (40 + number % 80), "label": "positive"})
        for number in range(100_000)
    ]
    block = ("\n".join(rows) + "\n").encode()
    with path.open("wb") as file:
        while file.tell() < num_bytes:
            file.write(block)


def best_s(work) -> float:
    """Seconds of the fastest of some tries."""
    times = []
    for _ in range(REPEATS):
        begun_s = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun_s)
    return min(times)


def index_rate(path: Path) -> dict:
    """The index of one big file in the page cache, against ``wc -l``."""
    num_bytes = path.stat().st_size
    wc_s = best_s(lambda: subprocess.run(["wc", "-l", path], check=True, capture_output=True))
    listed = list_inputs([str(path)])
    tasks = Tasks(listed)
    one_s = best_s(lambda: list(index_files(tasks, LongestRows())))
    all_s = best_s(lambda: list(index_files(tasks, LongestRows(), local_counting())))
    return {
        "processes": len(os.sched_getaffinity(0)),
        "wc_mb_per_s": num_bytes / wc_s / 1e6,
        "index_mb_per_s": num_bytes / all_s / 1e6,
        "index_of_wc": wc_s / all_s,
        "index_in_one_process_of_wc": wc_s / one_s,
    }


def planning(folder: Path, num_files: int, output: Path) -> dict:
    """Seconds to plan many small files."""
    for number in range(num_files):
        if number % 1000 == 0:
            place = folder / f"{number // 1000:04d}"
            place.mkdir(parents=True)
        (place / f"{number % 1000:03d}.jsonl").write_bytes(b'{"text": "%d"}\n' % number)
    # Files that are at rest: what the system has not written yet is its work, not ours.
    os.sync()
    begun_s = time.perf_counter()
    listed = list_inputs([str(folder)])
    listing_s = time.perf_counter() - begun_s
    del listed
    begun_s = time.perf_counter()
    planned = make_plan(
        spec_of(str(folder), output),
        "sha256:0",
        take_page=lambda *_: None,
        count_ranges=local_counting(),
    )
    plan_s = time.perf_counter() - begun_s
    if planned.plan.num_rows != num_files:
        raise SystemExit(f"found {planned.plan.num_rows} rows, wanted {num_files}")
    return {"files": num_files, "listing_s": listing_s, "plan_s": plan_s}


def reading(path: Path, output: Path) -> dict:
    """Rows against ``for line in open()`` and ``json.loads``."""
    store = open_store(str(output))
    plan = plan_of_output(store, spec_of(str(path), output), "sha256:0")
    num_rows = min(plan.num_rows, ROWS_READ)

    def plainly() -> None:
        with path.open(encoding="utf-8") as lines:
            for _, line in zip(range(num_rows), lines, strict=False):
                json.loads(line)

    def as_rows() -> None:
        for row in RowReader(store, plan).read_rows(0, num_rows):
            parse_row(row)

    plain_s, rows_s = best_s(plainly), best_s(as_rows)
    return {
        "plain_us_per_row": plain_s / num_rows * 1e6,
        "us_per_row": rows_s / num_rows * 1e6,
        "reading_of_plain": plain_s / rows_s,
    }


def main() -> None:
    """Measure all three and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--files", type=int, default=1_000_000)
    parser.add_argument("--folder", help="where to put inputs; a local disk with room")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        big = folder / "big.jsonl"
        write_lines(big, options.megabytes << 20)
        found = {"index": index_rate(big), "reading": reading(big, folder / "out")}
        big.unlink()
        found["planning"] = planning(folder / "many", options.files, folder / "out2")
    for part, values in found.items():
        for key, value in values.items():
            print(f"{part:10}{key:32}{value:,.3f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
