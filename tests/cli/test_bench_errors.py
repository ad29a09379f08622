"""What bench cannot measure ends in one paragraph, exit 2 and a JSON line."""

import json
import subprocess
import sys

import pytest

from rdu_batch.sessions.artifact import Artifact, Target


@pytest.fixture
def artifact(tmp_path):
    """Only its description: nothing else is read before it is judged."""

    def write(kind="inductor"):
        described = Artifact(
            kind=kind,
            dtype="bf16",
            max_seq_length=96,
            prefill_chunk=32,
            cache_length=128,
            num_layers=1,
            num_kv_heads=1,
            head_size=16,
            vocab_size=64,
            threads=None,
            without=(),
            model_family="llama",
            model_digest="sha256:0",
            settings_digest="sha256:0",
            target=Target(),
            files={},
        )
        (tmp_path / "artifact.json").write_bytes(described.to_bytes())
        return str(tmp_path)

    return write


def bench(*arguments):
    command = [sys.executable, "-m", "rdu_batch", "bench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["exit"] == done.returncode
    return done.returncode, document["message"]


def test_more_tokens_than_the_artifact_holds_say_the_limit(artifact):
    """128 and 65 do not go into 96."""
    code, message = bench(artifact(), "--new-tokens", "65")
    assert code == 2
    assert "193 together" in message
    assert "max_seq_length 96" in message


def test_no_sessions_side_by_side_is_refused(artifact):
    """At least one."""
    code, message = bench(artifact(), "--sessions", "0")
    assert (code, message) == (2, "--sessions is 0, wanted 1 or more")


def test_an_eager_artifact_is_refused(artifact):
    """There is nothing compiled in it."""
    code, message = bench(artifact("eager"), "--prompt-tokens", "8", "--new-tokens", "8")
    assert code == 2
    assert "--against eager" in message


def test_an_unknown_patch_names_the_known_ones(artifact):
    """Before anything is compiled."""
    fits = ("--prompt-tokens", "8", "--new-tokens", "8")
    code, message = bench(artifact(), *fits, "--without", "speed")
    assert code == 2
    assert "row_kernel" in message


def test_a_missing_artifact_is_exit_8(tmp_path):
    """As everywhere."""
    code, message = bench(str(tmp_path / "none"))
    assert code == 8
    assert "rdu-batch compile" in message
