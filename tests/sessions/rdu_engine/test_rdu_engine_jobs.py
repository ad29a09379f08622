"""A job of kind rdu_engine, as a person runs it, over the stand-in for the runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from rdu_batch.sessions.artifact import LocalArtifact

ROOT = Path(__file__).parents[3]
#: Stands in one prompt alone; the tiny tokenizer has one token for it.
POISON = "~"
PROMPTS = ["one two", "quick brown fox", f"a {POISON} b", "lazy dog " * 30, "hello there"]
#: Every other row is sampled.
SAMPLED = {"temperature": 0.8, "top_p": 0.9}


def job_file(folder: Path, artifact: Path, kind: str) -> Path:
    rows = folder / "rows.jsonl"
    lines = [
        json.dumps({"text": text, "how": SAMPLED if index % 2 else {}})
        for index, text in enumerate(PROMPTS)
    ]
    rows.write_text("\n".join(lines) + "\n")
    path = folder / f"{kind}.yaml"
    path.write_text(
        f"version: 1\nname: rdu\ninput: {{urls: ['{rows}']}}\nprompt: {{field: text}}\n"
        f"session: {{kind: {kind}, artifact: '{artifact}'}}\n"
        f"generation: {{max_new_tokens: 12, overrides_field: how}}\n"
        f"output: {{url: '{folder}/out-{kind}'}}\nlimits: {{max_dead_rows: 2}}\n"
    )
    return path


def poison_id(artifact: Path) -> int:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(artifact)
    (token_id,) = tokenizer(POISON, add_special_tokens=False).input_ids
    return int(token_id)


@pytest.mark.slow
@pytest.mark.all_only
def test_both_runtimes_of_an_rdu_give_the_same_bytes(
    tmp_path: Path, artifact: LocalArtifact, stand_in_environment: dict[str, str]
) -> None:
    """One artifact, one job file but for its kind: predictions, and what became of dead rows."""
    fault = json.dumps({"kind": "numerical", "token_id": poison_id(artifact.folder)})
    written = {}
    for kind in ("samba", "rdu_engine"):
        job = job_file(tmp_path, artifact.folder, kind)
        done = subprocess.run(
            [sys.executable, "-m", "rdu_batch", "run", str(job), "--executor", "inline"],
            env={**stand_in_environment, "SAMBAFLOW_STAND_IN_FAULTS": fault},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        output = tmp_path / f"out-{kind}"
        written[kind] = {
            path.name: path.read_bytes()
            for path in [*output.glob("part-*"), *output.glob("dead-*")]
        }
    assert written["samba"] == written["rdu_engine"]
    dead = [
        json.loads(line)["reason"]
        for name, content in sorted(written["rdu_engine"].items())
        if name.startswith("dead-")
        for line in content.splitlines()
    ]
    assert dead == ["numerical_error", "prompt_too_long"]
