"""What goes to a cluster with a submission: a whole job file, local inputs, and no secret."""

import json

import pytest

from rdu_batch.dataset.listing import list_inputs
from rdu_batch.errors import InputError, UsageError
from rdu_batch.job.loading import load_spec
from rdu_batch.job.plan import job_decides
from rdu_batch.runner import shipping
from rdu_batch.runner.shipping import job_file_text, shipment_of


@pytest.fixture
def spec_of(tmp_path, monkeypatch):
    """A spec with these inputs, in a folder that holds some."""
    monkeypatch.chdir(tmp_path)
    for name in ("in/a.jsonl", "in/b/c.jsonl", "in/notes.md", "in/.hidden.jsonl"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f'{{"text": "{name}"}}\n')

    def spec_of(*urls, more=""):
        text = (
            f"version: 1\nname: a\ninput: {{urls: {list(urls)}}}\n"
            "prompt: {template: \"Hi: {{ row.text }}\\n# 'x'\"}\nsession: {kind: fake}\n"
            f"output: {{url: out}}\n{more}"
        )
        return load_spec(text, source="job.yaml", date="2026-11-22")

    return spec_of


def shipped_job(spec):
    """The job as the cluster gets it, its inputs copied."""
    shipment = shipment_of(spec)
    shipment.copy()
    return shipment.spec


@pytest.mark.parametrize(
    ("url", "paths"),
    [
        ("in/a.jsonl", ["a.jsonl"]),
        ("in/", ["a.jsonl", "b/c.jsonl"]),
        ("in/*.jsonl", ["a.jsonl"]),
        ("in/**/*.jsonl", ["a.jsonl", "b/c.jsonl"]),
    ],
)
def test_local_inputs_mean_the_same_rows_beside_the_output(spec_of, url, paths):
    """Their relative paths, which seed the sampling of rows, stay what they were."""
    spec = spec_of(url)
    shipped = shipped_job(spec)
    (new_url,) = shipped.input.urls
    assert [file.path for file in list_inputs([url])] == paths
    assert [file.path for file in list_inputs([new_url])] == paths
    assert "/out/_run/inputs/" in new_url
    assert shipped_job(spec) == shipped, "the same content is the same job"


def test_a_changed_input_never_changes_what_was_submitted(spec_of, tmp_path):
    """A copy is of one content; until the job is planned, the last submission counts."""
    before = shipped_job(spec_of("in/a.jsonl"))
    (tmp_path / "in/a.jsonl").write_text('{"text": "new"}\n')
    after = shipped_job(spec_of("in/a.jsonl"))
    assert after.input.urls != before.input.urls
    assert list_inputs(before.input.urls)[0].size_bytes == len('{"text": "in/a.jsonl"}\n')


def test_an_input_that_changed_after_the_plan_is_refused_and_not_copied(spec_of, tmp_path):
    """Exit 4, as where a run reads it; the message says which, and what to do."""
    shipped_job(spec_of("in/*.jsonl"))
    (tmp_path / "out/_run/plan.json").write_text("{}")
    copies = sorted((tmp_path / "out/_run/inputs").rglob("*"))
    shipped_job(spec_of("in/*.jsonl"))
    (tmp_path / "in/a.jsonl").write_text('{"text": "new"}\n')
    with pytest.raises(InputError, match=r"in/\*\.jsonl: changed since .*output\.url=NEW"):
        shipment_of(spec_of("in/*.jsonl"))
    assert sorted((tmp_path / "out/_run/inputs").rglob("*")) == copies


def test_nothing_is_copied_before_it_is_submitted(spec_of, tmp_path):
    """A submission that is refused leaves nothing behind."""
    shipment_of(spec_of("in/a.jsonl"))
    assert not (tmp_path / "out").exists()


def test_a_submitted_job_is_the_job_that_its_file_says(spec_of):
    """``run``, ``plan`` and ``retry-dead`` of the file find it."""
    spec = spec_of("in/*.jsonl", "s3://bucket/more.jsonl")
    shipped = shipped_job(spec)
    assert shipped.input.urls != spec.input.urls
    assert job_decides(shipped, "sha256:0") == job_decides(spec, "sha256:0")
    other = spec_of("in/a.jsonl", "s3://bucket/more.jsonl")
    assert job_decides(shipped_job(other), "sha256:0") != job_decides(spec, "sha256:0")


def test_of_a_finished_output_no_input_is_looked_for(spec_of, tmp_path):
    """Whatever became of them, the driver finds it complete."""
    success = {"version": 1, "manifest_sha256": "0" * 64, "job_digest": "sha256:0"}
    (tmp_path / "out").mkdir()
    (tmp_path / "out/_SUCCESS").write_text(json.dumps(success) + "\n")
    spec = spec_of("gone/*.jsonl")
    assert shipped_job(spec).input == spec.input


def test_inputs_in_stores_or_on_every_node_are_left_where_they_are(spec_of, tmp_path):
    """`file://` says that every node has it."""
    urls = ("s3://bucket/in/*.jsonl", f"file://{tmp_path}/in/a.jsonl")
    assert shipped_job(spec_of(*urls)).input.urls == urls
    assert not (tmp_path / "out").exists()


def test_the_shipped_job_file_says_the_same_and_no_secret(spec_of, tmp_path, monkeypatch):
    """References to the environment are shipped as references."""
    monkeypatch.setenv("OUR_SECRET", "s3cr3t-value")
    spec = spec_of(
        "s3://bucket/in/*.jsonl",
        more="generation: {stop: ['\\n', \"'; rm -rf /\"]}\n",
    )
    shipped = shipped_job(spec)
    again = load_spec(job_file_text(shipped), source="job.yaml")
    assert again == shipped
    options = {"password": "${ENV:OUR_SECRET}"}
    inputs = shipped.input.model_copy(update={"storage_options": options})
    secret = job_file_text(shipped.model_copy(update={"input": inputs}))
    assert "${ENV:OUR_SECRET}" in secret
    assert "s3cr3t-value" not in secret
    assert shipped.output.url == str(tmp_path / "out")


def test_much_local_data_is_not_copied_without_a_word(spec_of, monkeypatch):
    """The message says where it belongs."""
    monkeypatch.setattr(shipping, "MAX_SHIPPED_BYTES", 10)
    with pytest.raises(UsageError, match="Put them into a store"):
        shipped_job(spec_of("in/a.jsonl"))
