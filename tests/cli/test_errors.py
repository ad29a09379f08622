"""What goes wrong ends in one paragraph, the right exit code and a JSON line; no traceback."""

import json
import socket
import subprocess
import sys

import pytest
import yaml


@pytest.fixture
def spec(tmp_path):
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"text": "one"}\n')
    return {
        "version": 1,
        "name": "errors",
        "input": {"urls": [str(rows)]},
        "prompt": {"field": "text"},
        "session": {"kind": "fake"},
        "output": {"url": str(tmp_path / "out")},
    }


@pytest.fixture
def run(tmp_path):
    def run(spec, *arguments, verb="run"):
        path = tmp_path / "job.yaml"
        path.write_text(spec if isinstance(spec, str) else yaml.safe_dump(spec))
        inline = ["--executor", "inline"] if verb == "run" else []
        command = [sys.executable, "-m", "rdu_batch", verb, str(path), *inline, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Traceback" not in done.stderr
        return done

    return run


def assert_exit(done, exit_code, *words):
    """The code in both places, and the words in the message."""
    assert done.returncode == exit_code, done.stderr
    assert json.loads(done.stdout.strip().splitlines()[-1])["exit"] == exit_code
    for word in words:
        assert word in done.stderr


@pytest.mark.parametrize("verb", ["run", "plan"])
def test_all_mistakes_of_a_job_file_are_reported_at_once(run, tmp_path, verb):
    """Exit 3; each with its file and line."""
    text = (
        "version: 1\nname: Bad Name\ninput:\n  url: [x.jsonl]\nprompt:\n  field: text\n"
        "session:\n  kind: fake\noutput:\n  url: out\n  rows_per_shard: none\n"
    )
    done = run(text, verb=verb)
    path = tmp_path / "job.yaml"
    assert_exit(done, 3, f"{path}:2", f"{path}:4", f"{path}:11", "did you mean")


def test_a_job_file_that_is_not_there(tmp_path):
    """Exit 3, saying what to name."""
    command = [sys.executable, "-m", "rdu_batch", "run", str(tmp_path / "none.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_exit(done, 3, "none.yaml", "cannot be read")
    assert "Traceback" not in done.stderr


def test_a_missing_input_is_exit_4(run, spec, tmp_path):
    """The URL is named."""
    spec["input"]["urls"] = [str(tmp_path / "nowhere" / "*.jsonl")]
    assert_exit(run(spec), 4, "nowhere")


def test_a_cluster_that_does_not_answer_is_exit_13(spec, tmp_path):
    """At once, with the ways out; nothing listens on the port."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(spec))
        command = [sys.executable, "-m", "rdu_batch", "run", str(path), "--address", address]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_exit(done, 13, address, "--address local")


@pytest.fixture
def without_gcsfs(tmp_path, monkeypatch):
    """Processes in which the driver for gs:// cannot be imported, as where it is not installed."""
    (tmp_path / "missing").mkdir()
    (tmp_path / "missing" / "gcsfs.py").write_text('raise ImportError("no gcsfs")\n')
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "missing"))


@pytest.mark.usefixtures("without_gcsfs")
def test_a_missing_artifact_is_exit_8(run, spec, tmp_path):
    """The message says how to make one."""
    spec["session"] = {"kind": "inductor", "artifact": str(tmp_path / "none")}
    assert_exit(run(spec), 8, "rdu-batch compile")
    spec["session"]["artifact"] = "gs://bucket/artifact"
    assert_exit(run(spec), 8, "rdu_batch[gcs]")


@pytest.mark.usefixtures("without_gcsfs")
def test_a_store_without_its_driver_names_the_extra(run, spec):
    """The message says what to install."""
    spec["output"]["url"] = "gs://bucket/out"
    assert_exit(run(spec), 6, "rdu_batch[gcs]")
    spec["input"]["urls"] = ["gs://bucket/rows.jsonl"]
    assert_exit(run(spec, "--set", "output.url=/tmp/never"), 4, "rdu_batch[gcs]")


def test_an_output_that_cannot_be_written_is_exit_6(run, spec, tmp_path):
    """A file stands where the folder should be."""
    (tmp_path / "file").write_text("in the way")
    spec["output"]["url"] = str(tmp_path / "file" / "out")
    assert_exit(run(spec), 6, str(tmp_path / "file"))


@pytest.fixture
def tiny_disk(tmp_path):
    """A real file system of 256 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, check=False, capture_output=True)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_one_clear_paragraph_and_a_rerun_goes_on(run, spec, tmp_path, tiny_disk):
    """Exit 6; with room again, the same command finishes the job."""
    rows = [json.dumps({"text": f"{n} " + "word " * 20}) for n in range(3000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    spec["output"]["url"] = str(tiny_disk / "out")
    assert_exit(run(spec), 6, "no space left", str(tiny_disk))
    resize = ["mount", "-o", "remount,size=64m", str(tiny_disk)]
    subprocess.run(resize, check=True, capture_output=True)
    assert_exit(run(spec), 0)


def test_an_unknown_session_kind_names_the_known_ones(run, spec, tmp_path):
    """Exit 3 with a hint."""
    spec["session"] = {"kind": "fke", "artifact": str(tmp_path)}
    assert_exit(run(spec), 3, "fke", "did you mean 'fake'", "inductor")


def test_a_full_scratch_disk_names_it(run, spec, tmp_path, tiny_disk, monkeypatch):
    """Outcomes are spooled under TMPDIR: exit 6, saying so."""
    rows = [json.dumps({"text": f"{n} " + "word " * 20}) for n in range(3000)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    monkeypatch.setenv("TMPDIR", str(tiny_disk))
    assert_exit(run(spec), 6, "scratch file", "TMPDIR")


def test_what_ray_refuses_to_reserve_is_an_error_of_the_job_file(spec, tmp_path):
    """CPU is not a custom resource: exit 3, naming the workers block."""
    spec["workers"] = {"resources": {"CPU": 1}}
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(spec))
    command = [sys.executable, "-m", "rdu_batch", "run", str(path), "--address", "local"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_exit(done, 3, "workers")
    assert "Traceback" not in done.stderr


def test_an_unknown_verb_or_option_is_exit_2():
    """Usage errors are click's, without a traceback."""
    for arguments in (["rnu"], ["run"], ["run", "job.yaml", "--no-such"]):
        command = [sys.executable, "-m", "rdu_batch", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        *(["status", ""], ["verify", ""], ["gc", ""], ["audit", " "], ["report", "file://"]),
        *(["doctor", "--store", ""], ["probe", ""]),
    ],
    ids=lambda words: words[0],
)
def test_an_empty_url_is_not_the_root_folder(tmp_path, words):
    """Exit 2: a script with an unset variable looks at nothing, and removes nothing."""
    command = [sys.executable, "-m", "rdu_batch", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert_exit(done, 2, "names no folder", "variable unset")
    assert "Traceback" not in done.stderr


def test_retry_dead_into_an_empty_url(spec, tmp_path):
    """The parent is named, the new output is not."""
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(spec))
    words = ["retry-dead", "out", "job.yaml", "--into", "", "--executor", "inline"]
    command = [sys.executable, "-m", "rdu_batch", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert_exit(done, 2, "names no folder")


def test_the_name_alone_is_help_and_nothing_else():
    """Exit 2, and no JSON line that holds the help once more."""
    command = [sys.executable, "-m", "rdu_batch"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Usage: rdu-batch [OPTIONS] COMMAND")
    assert "retry-dead" in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        *(["wait", "a-1", "--timeout"], ["wait", "a-1", "--patience"]),
        *(["audit", "out", "--row-timeout"], ["chaos", "job.yaml", "--run-timeout"]),
        ["report", "out", "--price-per-worker-hour"],
    ],
    ids=lambda words: words[-1],
)
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_time_that_no_clock_knows_is_exit_2(words, number):
    """Python takes both for numbers."""
    command = [sys.executable, "-m", "rdu_batch", *words, number]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert_exit(done, 2, f"{number} is not a finite number")
