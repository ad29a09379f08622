"""Parts as JSON lines, compressed, or as Parquet: the same lines whoever reads them back."""

import gzip
import io
import json
import subprocess

import pytest
from click.testing import CliRunner

from rdu_batch.cli.main import rdu_batch
from rdu_batch.errors import StoreDriverMissing
from rdu_batch.runner import part_formats
from rdu_batch.runner.part_formats import SUFFIX_OF, unpacked_lines

FORMATS = list(SUFFIX_OF)
PACKED = [one for one in FORMATS if one != "jsonl"]
#: Carried fields whose text must survive: numbers beyond any type, escapes, nesting, no value.
LINES = [
    b'{"id": 1, "text": "one", "label": 18446744073709551616}',
    b'{"id": "1", "text": "two words", "label": 1.0e+2}',
    b'{"id": null, "text": "three", "label": {"a": [1, {"b": null}], "c": "\\u00e9\\n"}}',
    '{"id": "é\u2028", "text": "four", "label": "null"}'.encode(),
    b'{"id": [1,2], "text": "five"}',
    b'{"id": 6, "text": 6, "label": "the prompt is no text: a dead letter"}',
    b'{"id": 7.50, "text": "seven", "label": -0}',
    b'{"id": "8", "text": "eight \\"quoted\\" \\\\", "label": ""}',
]


@pytest.fixture
def run_as(make_job):
    """Runs the job with its parts in a format; returns its folder."""

    def run(part_format, name, lines=LINES, **sections):
        job = make_job(name)
        job.write(lines, rows_per_shard=3, **sections)
        done = job.run("--executor", "inline", "--set", f"output.format={part_format}")
        assert done.returncode == 0, done.stderr
        return job

    return run


def lines_of(job):
    """The lines of all parts, by the number of the shard."""
    found = {}
    for path in sorted(job.output.glob("part-*")):
        with path.open("rb") as file:
            found[path.name.partition(".")[0]] = b"".join(unpacked_lines(file, path.name))
    return found


def verb(name, *arguments):
    """A verb's exit code and what it wrote, run in this process."""
    arguments = [name, *map(str, arguments)]
    done = CliRunner().invoke(rdu_batch, arguments, standalone_mode=False)
    assert done.exception is None, done.exception
    return done.return_value, done.output


SETTINGS = {
    "greedy": {},
    "samples": {
        "generation": {
            "max_new_tokens": 4, "temperature": 1.0, "num_samples": 3, "logprobs": True,
        }
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("part_format", "settings"),
    [
        *((one, "greedy") for one in PACKED),
        pytest.param("parquet", "samples", marks=pytest.mark.all_only),
    ],
)
def test_a_packed_part_holds_the_lines_of_the_plain_one_byte_for_byte(
    run_as, part_format, settings
):
    """Carried fields keep their exact JSON text, in Parquet too; a rerun writes equal files."""
    sections = SETTINGS[settings]
    plain = run_as("jsonl", "plain", **sections)
    packed, again = (run_as(part_format, name, **sections) for name in ("packed", "again"))
    assert lines_of(packed) == lines_of(plain)
    names = [path.name for path in sorted(packed.output.glob("part-*"))]
    assert [name.partition(".")[2] for name in names] == [SUFFIX_OF[part_format][1:]] * 3
    for name in names:
        assert (packed.output / name).read_bytes() == (again.output / name).read_bytes()
    dead = [path.name for path in sorted(plain.output.glob("dead-*"))]
    assert dead == ["dead-00001-of-00003.jsonl"]
    for name in dead:
        assert (packed.output / name).read_bytes() == (plain.output / name).read_bytes()


@pytest.mark.parametrize("part_format", PACKED)
def test_an_output_without_rows_has_one_readable_part(run_as, part_format):
    """Parquet has its columns all the same."""
    job = run_as(part_format, "empty", lines=[])
    assert lines_of(job) == {"part-00000-of-00001": b""}
    assert verb("verify", job.output)[0] == 0
    if part_format == "parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        (path,) = job.output.glob("part-*")
        assert parquet.read_schema(path).names == [
            *("row", "id", "prediction", "finish_reason"),
            *("num_prompt_tokens", "num_generated_tokens", "label"),
        ]


@pytest.mark.parametrize("part_format", PACKED)
def test_verify_names_a_packed_part_that_was_changed(run_as, part_format):
    """One flipped bit anywhere, or an end cut off."""
    job = run_as(part_format, "job")
    assert verb("verify", job.output)[0] == 0
    (path, *_) = sorted(job.output.glob("part-*"))
    whole = path.read_bytes()
    damaged = [whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :] for at in range(len(whole))]
    for content in (*damaged[:: max(1, len(whole) // 25)], whole[:-7], b"", whole + b"x"):
        path.write_bytes(content)
        exit_code, said = verb("verify", job.output)
        assert (exit_code, path.name in said) == (7, True), said
    path.write_bytes(whole)
    assert verb("verify", job.output)[0] == 0


@pytest.mark.parametrize("part_format", PACKED)
def test_audit_retry_and_gc_read_packed_parts(run_as, part_format, tmp_path):
    """What was built over lines goes on over packed ones."""
    job, as_format = run_as(part_format, "job"), f"output.format={part_format}"
    exit_code, said = verb("audit", job.output, "--sample", 8)
    assert (exit_code, json.loads(said.splitlines()[-1])["equal"]) == (0, 8), said
    arguments = ("--into", tmp_path / "retried", "--executor", "inline")
    retried = subprocess.run(
        [*job.command("retry-dead", job.output, job.path, *arguments), "--set", as_format],
        capture_output=True,
        text=True,
        check=False,
    )
    assert retried.returncode == 0, retried.stderr
    for path in sorted(job.output.glob("part-*")):
        assert (tmp_path / "retried" / path.name).read_bytes() == path.read_bytes()
    assert verb("verify", tmp_path / "retried")[0] == 0
    assert verb("gc", job.output)[0] == 0
    assert verb("verify", job.output)[0] == 0


@pytest.mark.parametrize("part_format", PACKED)
def test_samples_of_packed_parts_are_shown(make_job, part_format):
    """The end of a run shows predictions, whatever they are packed in."""
    job = make_job("shown").write(LINES)
    arguments = ("--executor", "inline", "--samples", "2")
    done = job.run(*arguments, "--set", f"output.format={part_format}")
    assert "label=18446744073709551616  -> " in done.stderr


def test_another_format_on_the_same_output_is_another_job(run_as):
    """The format decides the bytes."""
    job = run_as("jsonl", "job")
    done = job.run("--executor", "inline", "--set", "output.format=parquet")
    assert done.returncode == 3
    assert 'output.format: "jsonl" -> "parquet"' in done.stderr


def test_a_format_whose_library_is_missing_names_the_extra(monkeypatch):
    """Before anything is planned."""
    monkeypatch.setitem(part_formats._NEEDS, "parquet", ("no_such_library", "parquet"))
    with pytest.raises(StoreDriverMissing, match=r"pip install 'rdu_batch\[parquet\]'"):
        part_formats.check_can_pack("parquet")


@pytest.mark.parametrize("part_format", PACKED)
def test_anything_but_a_packed_file_is_said_to_be_none(part_format):
    """A consumer's mistake, or a damaged disk: a ValueError, never another one."""
    cut = gzip.compress(b"x" * 1000)[:-4]
    for content in (b"not packed at all, only text\n" * 9, b"PAR1PAR1", cut):
        if not (content is cut and part_format != "jsonl.gz"):
            with pytest.raises(ValueError, match=r"^it (cannot be decompressed|is no whole)"):
                list(unpacked_lines(io.BytesIO(content), f"part{SUFFIX_OF[part_format]}"))
