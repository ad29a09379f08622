"""Rows/s of the whole path, without a model: beside a plain loop, and beside Ray Data.

    python tests/benchmarks/rows_per_s.py [--rounds 3] [--batch-sizes 1 16 256]

Rows of 100 bytes, one generated token a row, the ``fake`` session, two workers on local Ray. The
plain loop reads, parses, makes a line and writes it, in one process. The Ray Data job gives batches
to two actors that hold the same session, and writes JSON lines. Each is run with all of its rows
and with a tenth of them: ``rows_per_s`` is the rows that are more by the seconds that are more, so
nobody's start-up counts. ``first_100k_s`` is what 100,000 rows take with it: ours from the command,
Ray's own start included, Ray Data's from the pipeline's start on a Ray that is there. Wants
``pip install -e '.[bench]'`` and a machine that does nothing else.
The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROW_BYTES = 100
BATCH_SIZES = (1, 16, 256)
#: The small run has this part of the rows.
SMALL_PART = 10
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


def our_job(rows: Path, folder: Path) -> float:
    """Seconds of a run, from its command to its end."""
    num_rows = sum(1 for _ in rows.open("rb"))
    job = folder / "job.yaml"
    text = JOB.format(rows=rows, output=folder / "out", rows_per_shard=max(1, num_rows // 20))
    job.write_text(text)
    command = [sys.executable, "-m", "rdu_batch", "run", str(job), "--address", "local"]
    started_s = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    took_s = time.perf_counter() - started_s
    if done.returncode != 0:
        raise SystemExit(f"the job failed: {done.stderr}{done.stdout}")
    if json.loads(done.stdout.splitlines()[-1])["predictions"] != num_rows:
        raise SystemExit(f"the job lost rows: {done.stdout}")
    return took_s


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


def ray_data(rows: Path, folder: Path, *, batch_size: int) -> float:
    """Seconds of the whole Ray Data pipeline, on a local Ray that is there already."""
    import ray
    import ray.data

    ray.init(address="local", num_cpus=4, logging_level=logging.ERROR, log_to_driver=False)
    ray.data.DataContext.get_current().enable_progress_bars = False
    started_s = time.perf_counter()
    (
        ray.data.read_json(str(rows))
        .map_batches(FakeModel, batch_size=batch_size, concurrency=2, num_cpus=1)
        .write_json(str(folder / "out"))
    )
    took_s = time.perf_counter() - started_s
    ray.shutdown()
    return took_s


@dataclass(frozen=True)
class Contender:
    """One way to do it; ``run`` takes the rows and an empty folder, and gives seconds."""

    name: str
    num_rows: int
    run: Callable[[Path, Path], float]


def contenders(batch_sizes: list[int]) -> list[Contender]:
    """Each with rows for some ten seconds; small batches are slow."""
    found = [
        Contender("plain loop", 1_000_000, lambda rows, folder: plain_loop(rows, folder / "out")),
        Contender("rdu_batch", 200_000, our_job),
    ]
    for size in batch_sizes:
        run = functools.partial(ray_data, batch_size=size)
        num_rows = {1: 20_000, 16: 100_000}.get(size, 600_000)
        found.append(Contender(f"Ray Data, batches of {size}", num_rows, run))
    return found


def measure(one: Contender, folder: Path) -> tuple[float, float]:
    """Rows a second without start-up, and seconds of 100,000 rows with it."""
    seconds = []
    for part in (SMALL_PART, 1):
        here = folder / f"{one.name}-{part}"
        here.mkdir(parents=True)
        rows = here / "rows.jsonl"
        write_rows(rows, one.num_rows // part)
        seconds.append(one.run(rows, here))
    small_s, large_s = seconds
    num_small = one.num_rows // SMALL_PART
    rate = (one.num_rows - num_small) / (large_s - small_s)
    return rate, small_s + (100_000 - num_small) / rate


def main() -> None:
    """Measure in turns and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-sizes", type=int, nargs="*", default=list(BATCH_SIZES))
    chosen = parser.parse_args()
    rates: dict[str, list[tuple[float, float]]] = {}
    for turn in range(chosen.rounds):
        for one in contenders(chosen.batch_sizes):
            with tempfile.TemporaryDirectory() as temporary:
                found = measure(one, Path(temporary))
            rates.setdefault(one.name, []).append(found)
            print(f"round {turn + 1}: {one.name:>24}  {found[0]:10,.0f} rows/s", file=sys.stderr)
    report(rates)


def report(rates: dict[str, list[tuple[float, float]]]) -> None:
    """A table of medians, and the same as JSON; shares are of the same round's plain loop."""
    found = {}
    for name, each in rates.items():
        pairs = zip(each, rates["plain loop"], strict=True)
        share = statistics.median(one[0] / plain[0] for one, plain in pairs)
        rate, whole_s = (statistics.median(values) for values in zip(*each, strict=True))
        found[name] = {
            "rows_per_s": round(rate, 1),
            "of_plain_loop": round(share, 4),
            "first_100k_s": round(whole_s, 2),
        }
        told = f"{share:.3f} of the plain loop; 100,000 rows with start-up in {whole_s:.1f} s"
        print(f"{name:>24}  {rate:10,.0f} rows/s  {told}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
