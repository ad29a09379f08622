"""Jobs of kind samba, as a person runs them, over the stand-in for SambaFlow."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[3]
#: Stands in one prompt alone; the tiny tokenizer has one token for it.
POISON = "~"
PROMPTS = ["one two", "quick brown fox", f"a {POISON} b", "lazy dog " * 30, "hello there"]
#: Every other row is sampled.
SAMPLED = {"temperature": 0.8, "top_p": 0.9}


@pytest.fixture(scope="module")
def rdu_batch(stand_in_environment: dict[str, str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    """The command line in a process of its own; gives back exit code and last JSON line."""

    def call(*arguments: object, **environment: str) -> tuple[int, dict[str, Any]]:
        done = subprocess.run(
            [sys.executable, "-m", "rdu_batch", *map(str, arguments)],
            env={**stand_in_environment, **environment},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        print(done.stderr)  # noqa: T201 - shown where a test fails
        return done.returncode, json.loads(done.stdout.splitlines()[-1])

    return call


@pytest.fixture(scope="module")
def exact_config(
    tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Callable[[str], Path]
) -> Path:
    """The tiny GPT-2's config with the exact GELU, for kinds that have no patch."""
    config = json.loads((tiny_checkpoint("gpt2") / "config.json").read_text())
    path = tmp_path_factory.mktemp("exact") / "config.json"
    path.write_text(json.dumps({**config, "activation_function": "gelu"}))
    return path


def job_file(folder: Path, artifact: Path, kind: str) -> Path:
    rows = folder / "rows.jsonl"
    with rows.open("w") as lines:
        for index, text in enumerate(PROMPTS):
            print(json.dumps({"text": text, "how": SAMPLED if index % 2 else {}}), file=lines)
    path = folder / f"{kind}.yaml"
    path.write_text(
        f"version: 1\nname: rdu\ninput: {{urls: ['{rows}']}}\nprompt: {{field: text}}\n"
        f"session: {{kind: {kind}, artifact: '{artifact}'}}\n"
        f"generation: {{max_new_tokens: 12, overrides_field: how}}\n"
        f"output: {{url: '{folder}/out-{kind}'}}\nlimits: {{max_dead_rows: 2}}\n"
    )
    return path


def records(folder: Path, name: str) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for path in sorted(folder.glob(f"{name}-*.jsonl"))
        for line in path.read_text().splitlines()
    ]


def poison_id(artifact: Path) -> int:
    from transformers import AutoTokenizer

    (token_id,) = AutoTokenizer.from_pretrained(artifact)(
        POISON, add_special_tokens=False
    ).input_ids
    return int(token_id)


@pytest.mark.slow
@pytest.mark.all_only
@pytest.mark.parametrize(
    "graphs", [("--graphs", "single"), ("--graphs", "cached", "--prefill_lengths", "4,8,48")]
)
def test_a_job_gives_the_predictions_of_an_eager_one_and_isolates_its_dead_rows(
    tmp_path: Path,
    tiny_checkpoint: Callable[[str], Path],
    exact_config: Path,
    rdu_batch: Callable[..., tuple[int, dict[str, Any]]],
    graphs: tuple[str, ...],
) -> None:
    """The tutorial's folder and PEF, greedy and sampled rows, two dead ones, then a no-op."""
    model = tiny_checkpoint("gpt2")
    pef = tmp_path / "out" / "inference" / "inference.pef"
    shape = ["--dtype", "fp32", "--max_seq_length", "48"]
    code, _ = rdu_batch(
        *("compile", model, "--inference", "--kind", "samba", *graphs, *shape),
        *("--output-folder", tmp_path / "out", "--pef-name", "inference"),
    )
    assert code == 0
    assert pef.is_file()
    eager = tmp_path / "eager"
    code, _ = rdu_batch(
        "compile", model, "--config_name", exact_config, "--kind", "eager", *shape, "--out", eager
    )
    assert code == 0
    fault = json.dumps({"kind": "numerical", "token_id": poison_id(pef.parent)})
    run = ["run", job_file(tmp_path, pef.parent, "samba"), "--executor", "inline"]
    code, summary = rdu_batch(*run, SAMBAFLOW_STAND_IN_FAULTS=fault)
    assert (code, summary["dead"]) == (0, 2)
    dead = {one["row"][1]: one["reason"] for one in records(tmp_path / "out-samba", "dead")}
    assert dead == {3: "numerical_error", 4: "prompt_too_long"}
    code, _ = rdu_batch("run", job_file(tmp_path, eager, "eager"), "--executor", "inline")
    assert code == 0
    wanted = {one["row"][1]: one for one in records(tmp_path / "out-eager", "part")}
    assert wanted.keys() == {1, 2, 3, 5}
    del wanted[3]
    assert {one["row"][1]: one for one in records(tmp_path / "out-samba", "part")} == wanted
    before = (tmp_path / "out-samba" / "_SUCCESS").stat().st_mtime_ns
    assert rdu_batch(*run)[0] == 0
    assert (tmp_path / "out-samba" / "_SUCCESS").stat().st_mtime_ns == before
