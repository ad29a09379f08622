"""Rows/s of the whole path, without a model: beside a plain loop, and beside Ray Data.

    python tests/benchmarks/rows_per_s.py [--rows 100000] [--rounds 3]

Rows of 100 bytes, one generated token a row, the ``fake`` session, two workers on local Ray. The
plain loop reads, parses, makes a line and writes it, in one process. The Ray Data job gives batches
to two actors that hold the same session, and writes JSON lines. Our time begins when the first
worker is ready; Ray Data's begins with the pipeline, so its actors' start is in it: take enough
rows. Wants ``pip install -e '.[bench]'`` and a machine that does nothing else.
The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROW_BYTES = 100
BATCH_SIZES = (1, 16, 256)
JOB = """
version: 1
name: rows-per-s
input: {{urls: ["{rows}"], id_field: id}}
prompt: {{field: text}}
session: {{kind: fake}}
generation: {{max_new_tokens: 1}}
output: {{url: "{output}", rows_per_shard: {rows_per_shard}}}
workers: {{count: 2}}
"""


def write_rows(path: Path, num_rows: int) -> None:
    """Rows of 100 bytes, the newline counted."""
    with path.open("w") as file:
        for number in range(num_rows):
            empty = len(json.dumps({"id": number, "text": ""})) + 1
            text = ("word " * 20)[: ROW_BYTES - empty]
            file.write(json.dumps({"id": number, "text": text}) + "\n")


def plain_loop(rows: Path, output: Path) -> float:
    """Seconds of reading and writing alone, in one process."""
    started_s = time.perf_counter()
    with rows.open() as source, output.open("w") as target:
        for line_number, line in enumerate(source, 1):
            row = json.loads(line)
            prediction = {"row": [0, line_number], "id": row["id"], "prediction": row["text"][:1]}
            target.write(json.dumps(prediction) + "\n")
    return time.perf_counter() - started_s


def our_job(rows: Path, folder: Path, num_rows: int) -> float:
    """Seconds of a run, from its workers' being ready to its end."""
    job = folder / "job.yaml"
    rows_per_shard = max(1, num_rows // 20)
    text = JOB.format(rows=rows, output=folder / "out", rows_per_shard=rows_per_shard)
    job.write_text(text)
    process = subprocess.Popen(
        [sys.executable, "-m", "rdu_batch", "run", str(job), "--address", "local"],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    ready_s = 0.0
    for line in process.stderr or ():
        if " is ready" in line and not ready_s:
            ready_s = time.perf_counter()
        if line.lstrip().startswith("job  "):
            break
    ended_s = time.perf_counter()
    output, errors = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"the job failed: {errors}{output}")
    if json.loads(output.splitlines()[-1])["predictions"] != num_rows:
        raise SystemExit(f"the job lost rows: {output}")
    return ended_s - ready_s


class FakeModel:
    """What a Ray Data user would write around the same session."""

    def __init__(self) -> None:
        from rdu_batch.job.spec import GenerationSpec
        from rdu_batch.sessions.registry import open_session
        from rdu_batch.sessions.tokenizer import open_tokenizer

        self.session = open_session("fake", None, threads=1)
        self.tokenizer = open_tokenizer("fake", None)
        self.generation = GenerationSpec(max_new_tokens=1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One batch, row by row: the session has batch size 1."""
        from rdu_batch.job.prompt import Prompt
        from rdu_batch.sessions.decode_loop import generate

        predictions = []
        for text in batch["text"]:
            ids = self.tokenizer.encode(Prompt(text=str(text), messages=None), date=None)
            made = generate(self.session, self.tokenizer, ids, self.generation, row_seed=0)
            predictions.append(made.text)
        return {"id": batch["id"], "prediction": predictions}


def ray_data(rows: Path, output: Path, batch_size: int) -> float:
    """Seconds of the whole Ray Data pipeline."""
    import ray.data

    started_s = time.perf_counter()
    (
        ray.data.read_json(str(rows))
        .map_batches(FakeModel, batch_size=batch_size, concurrency=2, num_cpus=1)
        .write_json(str(output))
    )
    return time.perf_counter() - started_s


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=list(BATCH_SIZES))
    chosen = parser.parse_args()
    seconds: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        rows = Path(temporary, "rows.jsonl")
        write_rows(rows, chosen.rows)
        for turn in range(chosen.rounds):
            folder = Path(temporary, str(turn))
            folder.mkdir()
            seconds.setdefault("plain loop", []).append(plain_loop(rows, folder / "plain"))
            seconds.setdefault("rdu_batch", []).append(our_job(rows, folder, chosen.rows))
        if chosen.batch_sizes:
            measure_ray_data(rows, Path(temporary), chosen, seconds)
    report(chosen.rows, seconds)


def measure_ray_data(
    rows: Path, folder: Path, chosen: argparse.Namespace, seconds: dict[str, list[float]]
) -> None:
    """Every batch size in turns, on one local Ray; small batches get fewer rows, to end at all."""
    import logging

    import ray
    import ray.data

    ray.init(address="local", logging_level=logging.ERROR, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    for turn in range(chosen.rounds):
        for batch_size in chosen.batch_sizes:
            output = folder / f"ray-{turn}-{batch_size}"
            found = ray_data(rows, output, batch_size)
            seconds.setdefault(f"Ray Data, batches of {batch_size}", []).append(found)
    ray.shutdown()


def report(num_rows: int, seconds: dict[str, list[float]]) -> None:
    """A table, and the same as JSON."""
    rates = {name: num_rows / statistics.median(times) for name, times in seconds.items()}
    for name, rate in rates.items():
        share = rate / rates["plain loop"]
        print(f"{name:>28}  {rate:10,.0f} rows/s  {share:.3f} of the plain loop")
    print(json.dumps({name: round(rate, 1) for name, rate in rates.items()}))


if __name__ == "__main__":
    main()
