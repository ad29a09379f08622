"""The whole verb on a tiny model: every number is finite and positive; no speed is asked for."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rdu_batch.sessions.artifact import LocalArtifact

POSITIVE = (
    *("decode_tokens_per_s", "read_bytes_per_s", "bytes_per_token", "roofline_fraction"),
    *("prefill_tokens_per_s", "matmul_flop_per_s", "prefill_matmul_fraction", "open_s"),
    *("first_token_s", "import_s", "large_page_read_bytes_per_s"),
)
AGAINST = ("eager_decode_tokens_per_s", "eager_first_token_s", "speedup")
SIDE_BY_SIDE = ("sessions_tokens_per_s", "sessions_roofline_fraction", "private_bytes_per_session")
SMALL = ("--threads", "1", "--prompt-tokens", "20", "--new-tokens", "8", "--rounds", "3")


def bench(artifact: LocalArtifact, *arguments: str) -> tuple[list[str], dict[str, Any]]:
    """The table and the JSON line of a bench that succeeds."""
    command = [sys.executable, "-m", "rdu_batch", "bench", artifact.artifact.url, *SMALL]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *table, line = done.stdout.splitlines()
    return table, json.loads(line)


@pytest.mark.slow
@pytest.mark.all_only
def test_a_tiny_model_is_measured_in_every_way(
    tiny_artifact: Callable[[str, str], LocalArtifact],
) -> None:
    """Against transformers, and two sessions side by side."""
    table, found = bench(
        tiny_artifact("inductor", "llama"), "--against", "eager", "--sessions", "2"
    )
    for name in (*POSITIVE, *AGAINST, *SIDE_BY_SIDE):
        assert math.isfinite(found[name]), name
        assert found[name] > 0, name
    assert found["rounds"] == 3
    assert found["shared_weights_bytes"] > 0
    assert found["exit"] == 0
    assert any("small enough to stay in a cache" in line for line in table)


@pytest.mark.all_only
def test_a_model_without_a_patch_is_compiled_kept_and_measured(
    tiny_artifact: Callable[[str, str], LocalArtifact], tmp_path: Path
) -> None:
    """The second time nothing is compiled."""
    artifact, keep = tiny_artifact("inductor", "gpt2"), tmp_path / "kept"
    written = []
    for _ in range(2):
        table, found = bench(artifact, "--without", "row_kernel", "--keep", str(keep))
        assert found["without_speedup"] > 0
        assert any(line.startswith("without row_kernel: ") for line in table)
        written += [path.stat().st_mtime_ns for path in keep.rglob("artifact.json")]
    assert len(written) == 2
    assert written[0] == written[1]
