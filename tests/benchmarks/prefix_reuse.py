"""What kept chunks buy: rows that share a template, with the reuse and without, side by side.

    python tests/benchmarks/prefix_reuse.py ARTIFACT [--threads 1] [--rows 12]

Each row is a template of 256 tokens and 32 of its own, and asks for 4 tokens. Every row runs twice,
one after the other: once after a row of the same template, once after ``reset``, which forgets it.
The last line of stdout is JSON.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time

from rdu_batch.sessions.artifact_store import fetch_artifact
from rdu_batch.sessions.registry import open_session

TEMPLATE_TOKENS, ROW_TOKENS, NEW_TOKENS = 256, 32, 4


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rows", type=int, default=12)
    chosen = parser.parse_args()
    session = open_session("inductor", fetch_artifact(chosen.artifact), threads=chosen.threads)
    drawn = random.Random(1)

    def tokens(count: int) -> list[int]:
        return [drawn.randrange(session.info.vocab_size) for _ in range(count)]

    def seconds(prompt: list[int]) -> tuple[float, list[int]]:
        started_s = time.perf_counter()
        token_ids = [session.prefill(prompt).token_id]
        while len(token_ids) < NEW_TOKENS:
            position = len(prompt) + len(token_ids) - 1
            token_ids.append(session.decode(token_ids[-1], position).token_id)
        return time.perf_counter() - started_s, token_ids

    template = tokens(TEMPLATE_TOKENS)
    seconds([*template, *tokens(ROW_TOKENS)])
    with_reuse_s, without_s = [], []
    for _ in range(chosen.rows):
        prompt = [*template, *tokens(ROW_TOKENS)]
        kept_s, kept = seconds(prompt)
        session.reset()
        fresh_s, fresh = seconds(prompt)
        if kept != fresh:
            raise SystemExit(f"reuse changed the tokens: {kept} against {fresh}")
        with_reuse_s.append(kept_s)
        without_s.append(fresh_s)
    kept_s, fresh_s = statistics.median(with_reuse_s), statistics.median(without_s)
    print(f"a row: {kept_s * 1e3:.0f} ms with reuse, {fresh_s * 1e3:.0f} ms without")
    print(
        json.dumps(
            {
                "row_s": round(kept_s, 4),
                "row_without_reuse_s": round(fresh_s, 4),
                "speedup": round(fresh_s / kept_s, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
