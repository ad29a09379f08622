"""Samples, log-probabilities and settings of a row's own, from job file to published line."""

import json
import subprocess

import pytest

from rdu_batch.dataset.planning import plan_of_output
from rdu_batch.job.loading import load_spec
from rdu_batch.job.records import PREDICTION_KEYS, Fields
from rdu_batch.report.samples import sample_line
from rdu_batch.runner.identity import identify_job
from rdu_batch.runner.job_context import JobContext
from rdu_batch.runner.lease_run import LeaseRunner
from rdu_batch.runner.leases import Lease, SealTask
from rdu_batch.storage.store import open_store

SAMPLED = {"max_new_tokens": 12, "temperature": 3.0, "num_samples": 3, "logprobs": True}


def run_leases(job, *ends):
    """Run one shard's rows in leases that end at these rows; its part and its dead letters."""
    spec = load_spec(job.path.read_text(), source=str(job.path))
    store = open_store(spec.output.url)
    plan = plan_of_output(store, spec, identify_job(spec).artifact_digest)
    context = JobContext(spec, plan.digest, 1)
    with LeaseRunner(JobContext.from_json(context.to_json())) as runner:
        first = 0
        for number, end in enumerate(ends):
            runner.run(Lease(number, 0, first, end, covers_shard=len(ends) == 1))
            first = end
        if len(ends) > 1:
            runner.run(SealTask(0))
    return [
        path.read_bytes()
        for kind in ("part", "dead")
        for path in job.output.glob(f"{kind}-00000-of-00001.jsonl")
    ]


def records(lines):
    return [json.loads(line) for line in lines.splitlines()]


def test_several_samples_of_a_row_are_lists_in_one_line(make_job, make_lines):
    """One line a row, keys in their order; the first sample is what one sample would be."""
    lines = make_lines(4)
    (part,) = run_leases(make_job("three").write(lines, generation=SAMPLED), 4)
    one = make_job("one").write(lines, generation={**SAMPLED, "num_samples": 1})
    (part_of_one,) = run_leases(one, 4)
    found, found_of_one = records(part), records(part_of_one)
    assert [record["row"] for record in found] == [[0, 1], [0, 2], [0, 3], [0, 4]]
    for record, single in zip(found, found_of_one, strict=True):
        assert tuple(record) == (*PREDICTION_KEYS, "logprobs", "label")
        lists = ("prediction", "finish_reason", "num_generated_tokens", "logprobs")
        for key in lists:
            assert len(record[key]) == 3
            assert record[key][0] == single[key]
        counts = [len(logprobs) for logprobs in record["logprobs"]]
        assert record["num_generated_tokens"] == counts
        assert record["num_prompt_tokens"] == single["num_prompt_tokens"]
    assert all(len(set(record["prediction"])) == 3 for record in found)


def test_the_lines_do_not_depend_on_the_leases(make_job, make_lines):
    """Samples, log-probabilities and rows of their own settings, in leases of any size."""
    lines = make_lines(7)
    lines[2] = b'{"text": "own", "own": {"temperature": 2, "max_new_tokens": 30, "seed": 9}}'
    lines[3] = b'{"text": "bad", "own": {"temperature": 0}}'
    generation = {**SAMPLED, "overrides_field": "own", "repetition_penalty": 1.2, "min_p": 0.001}
    written = [
        run_leases(make_job(str(number)).write(lines, generation=generation), *ends)
        for number, ends in enumerate([(7,), (1, 2, 3, 4, 5, 6, 7), (2, 4, 7)])
    ]
    assert written[0] == written[1] == written[2]
    part, dead = written[0]
    assert (len(records(part)), len(records(dead))) == (6, 1)


def test_rows_have_settings_of_their_own_and_wrong_ones_are_dead_letters(make_job, make_lines):
    """Each named by its reason; the other rows are as without them."""
    plain_lines = make_lines(5)
    lines = [json.dumps({**json.loads(line), "own": None}).encode() for line in plain_lines]
    lines[1] = lines[1].replace(b"null", b'{"max_new_tokens": 33, "min_new_tokens": 33}')
    lines[2] = lines[2].replace(b"null", b'{"max_new_token": 3}')
    lines[3] = lines[3].replace(b"null", b'{"stop_token_ids": [32]}')
    generation = {"max_new_tokens": 20, "overrides_field": "own"}
    part, dead = run_leases(make_job("own").write(lines, generation=generation), 5)
    (plain,) = run_leases(make_job("plain").write(plain_lines), 5)
    found, of_plain = records(part), records(plain)
    assert [found[0], found[3]] == [of_plain[0], of_plain[4]]
    assert (found[1]["num_generated_tokens"], found[1]["finish_reason"]) == (33, "length")
    assert found[2]["finish_reason"] == "stop"
    assert found[2]["prediction"] == of_plain[3]["prediction"].split(" ")[0]
    (letter,) = records(dead)
    assert (letter["row"], letter["id"], letter["reason"]) == ([0, 3], "r2", "bad_override")
    assert letter["detail"].startswith('the field "own": found the key "max_new_token"; wanted')


def test_a_row_that_fails_in_one_sample_is_a_dead_letter_as_a_whole(make_job):
    """All samples of a row or none."""
    every_token = list(range(257))
    own = {"min_new_tokens": 1, "stop_token_ids": every_token}
    lines = [json.dumps({"text": "a", "own": own}).encode(), b'{"text": "b"}']
    generation = {**SAMPLED, "overrides_field": "own"}
    part, dead = run_leases(make_job("none").write(lines, generation=generation), 2)
    assert [record["row"] for record in records(part)] == [[0, 2]]
    assert records(dead)[0]["reason"] == "nothing_to_choose"


def test_an_empty_prompt_without_a_bos_is_a_dead_letter(make_job):
    """The byte tokenizer has none."""
    lines = [b'{"text": ""}', b'{"text": "a"}']
    part, dead = run_leases(make_job("empty").write(lines), 2)
    assert len(records(part)) == 1
    (letter,) = records(dead)
    assert letter["reason"] == "empty_prompt"
    assert "no BOS" in letter["detail"]


@pytest.fixture
def finished(job, make_lines, read_last_json):
    """A finished job of three samples a row, and what its run said."""
    done = job.write(make_lines(9), rows_per_shard=4, generation=SAMPLED).run(
        "--executor", "inline", "--samples", "2"
    )
    assert done.returncode == 0, done.stderr
    return job, read_last_json(done), done.stderr


def test_totals_count_rows_once_and_samples_each(finished):
    """Prompts once, generated tokens and finish reasons of every sample; verify counts alike."""
    job, summary, stderr = finished
    lines = [
        record
        for path in sorted(job.output.glob("part-*"))
        for record in records(path.read_bytes())
    ]
    assert (summary["rows"], summary["predictions"], summary["dead"]) == (9, 9, 0)
    assert sum(summary["finish_reasons"].values()) == 27
    assert summary["prompt_tokens"] == sum(record["num_prompt_tokens"] for record in lines)
    generated = sum(sum(record["num_generated_tokens"]) for record in lines)
    assert summary["generated_tokens"] == generated
    assert stderr.count("sample=1/3") == 2
    command = job.command("verify", job.output)
    verified = subprocess.run(command, capture_output=True, text=True, check=False)
    assert verified.returncode == 0, verified.stderr


def test_a_line_of_several_samples_is_shown_with_the_first():
    """Log-probabilities are not shown."""
    record = {"row": [0, 1], "id": "a", "prediction": ["x y", "z"], "logprobs": [[-1.0], [-2.0]]}
    record["label"] = 5
    fields = Fields(record, None, json.dumps(record))
    assert sample_line(fields) == "a  label=5  sample=1/2  ->  x y"
