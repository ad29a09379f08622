"""One job file, three kinds of session: what a person gets who changes nothing but ``session:``."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ROOT = Path(__file__).parents[3]
#: The fourth leaves no room for a token; every other row is sampled.
PROMPTS = ["one two", "quick brown fox", "hello there", "lazy dog " * 30, "three", "user: hello"]
SAMPLED = {"temperature": 0.8, "top_p": 0.9}
#: How each kind is compiled; the patch for the RDU brings its exact GELU along.
COMPILED = {
    "samba": (),
    "inductor": ("--gelu", "erf", "--prefill_chunk", "16"),
    "eager": ("--gelu", "erf"),
}


@pytest.fixture
def rdu_batch(stand_in_environment: Mapping[str, str]) -> Callable[..., None]:
    """The command line in a process of its own, which must succeed."""

    def call(*arguments: object) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "rdu_batch", *map(str, arguments)],
            env=dict(stand_in_environment),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    return call


def published(output: Path) -> dict[str, bytes]:
    """What a job wrote for its readers: predictions and dead letters, byte for byte."""
    return {
        path.name: path.read_bytes() for path in [*output.glob("part-*"), *output.glob("dead-*")]
    }


@pytest.mark.slow
@pytest.mark.all_only
def test_only_the_session_block_differs_and_the_bytes_do_not(
    tmp_path: Path, tiny_checkpoint: Callable[[str], Path], rdu_batch: Callable[..., None]
) -> None:
    """In fp32 and with the exact GELU in all three: an RDU's stand-in, a compiled CPU, eager."""
    rows = tmp_path / "rows.jsonl"
    with rows.open("w") as lines:
        for index, text in enumerate(PROMPTS):
            print(json.dumps({"text": text, "how": SAMPLED if index % 2 else {}}), file=lines)
    written = {}
    for kind, options in COMPILED.items():
        folder, output = tmp_path / kind, tmp_path / f"out-{kind}"
        rdu_batch(
            *("compile", tiny_checkpoint("gpt2"), "--out", folder, "--kind", kind),
            *("--dtype", "fp32", "--max_seq_length", "48", *options),
        )
        job = tmp_path / f"{kind}.yaml"
        job.write_text(
            f"version: 1\nname: three-kinds\ninput: {{urls: ['{rows}']}}\nprompt: {{field: text}}\n"
            f"session: {{kind: {kind}, artifact: '{folder}'}}\n"
            f"generation: {{max_new_tokens: 20, overrides_field: how}}\n"
            f"output: {{url: '{tmp_path}/out'}}\nlimits: {{max_dead_rows: 1}}\n"
        )
        rdu_batch("run", job, "--executor", "inline", "--set", f"output.url={output}")
        written[kind] = published(output)
    assert sorted(written["eager"]) == ["dead-00000-of-00001.jsonl", "part-00000-of-00001.jsonl"]
    assert len(written["eager"]["part-00000-of-00001.jsonl"].splitlines()) == len(PROMPTS) - 1
    assert written["samba"] == written["eager"]
    assert written["inductor"] == written["eager"]
