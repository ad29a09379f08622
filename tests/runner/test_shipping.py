"""What goes to a cluster with a submission: a whole job file, local inputs, and no secret."""

import pytest

from rdu_batch.dataset.listing import list_inputs
from rdu_batch.errors import UsageError
from rdu_batch.job.loading import load_spec
from rdu_batch.runner import shipping
from rdu_batch.runner.shipping import job_file_text, shipped_job


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


def test_a_changed_input_is_another_job(spec_of, tmp_path):
    """A running submission never sees its input change."""
    before = shipped_job(spec_of("in/a.jsonl"))
    (tmp_path / "in/a.jsonl").write_text('{"text": "new"}\n')
    after = shipped_job(spec_of("in/a.jsonl"))
    assert after.input.urls != before.input.urls
    assert (tmp_path / "out").exists()
    assert list_inputs(before.input.urls)[0].size_bytes == len('{"text": "in/a.jsonl"}\n')


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
