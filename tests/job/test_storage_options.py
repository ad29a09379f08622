"""Storage options of a job file: references to the environment, and no secrets."""

from __future__ import annotations

import pytest

from rdu_batch.errors import SpecError
from rdu_batch.job.loading import load_spec
from rdu_batch.job.plan import job_decides
from rdu_batch.job.secret_words import hide_secrets, is_secret_name
from rdu_batch.job.storage_options import VariableUnset, resolve_options, secrets_of

SECRET = "hunter2-is-the-secret"

JOB = """version: 1
name: small
input:
  urls: ["s3://corpus/a.jsonl"]
prompt: {field: text}
session: {kind: fake}
output:
  url: s3://out/here
"""


def problems_of(text: str, *overrides: str) -> list[str]:
    """What is wrong with a job file that must be wrong; the secret is not in it."""
    with pytest.raises(SpecError) as caught:
        load_spec(text, source="job.yaml", overrides=overrides)
    assert SECRET not in str(caught.value)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    "line",
    [
        f"secret: {SECRET}",
        f"key: {SECRET}",
        f"sas_token: {SECRET}",
        f"sasToken: {SECRET}",
        f"account_key: {SECRET}",
        f"connection_string: {SECRET}",
        f"password: {SECRET}",
        f"passphrase: {SECRET}",
        "password: 123456",
        f"credential: {SECRET}",
        f"aws-secret-access-key: {SECRET}",
        f"client_kwargs: {{headers: {{Authorization: Bearer {SECRET}}}}}",
        f"token: {{type: service_account, id: {SECRET}}}",
        f"proxy: http://bob:{SECRET}@proxy",
        f"base: AccountName=x;AccountKey={SECRET};",
    ],
)
def test_a_secret_itself_is_refused_with_its_line(line: str) -> None:
    """The advice names the way; the secret is not said again."""
    [problem] = [*problems_of(f"{JOB}  storage_options:\n    {line}\n")][:1]
    assert problem.startswith("job.yaml:10: output.storage_options.")
    assert 'wanted "${ENV:NAME}"' in problem


@pytest.mark.parametrize(
    "line",
    [
        "secret: ${ENV:SECRET}",
        "connection_string: AccountName=x;AccountKey=${ENV:SECRET};Blob=http://x",
        "client_kwargs: {headers: {Authorization: 'Bearer ${ENV:SECRET}'}}",
        "token: anon",
        "key_filename: /home/me/.ssh/id",
        "endpoint_url: http://127.0.0.1:1",
        "anon: true",
        "timeout: 3.5",
        "profile: null",
    ],
)
def test_what_is_no_secret_or_names_a_variable_is_taken(line: str) -> None:
    """In each of the three sections."""
    text = JOB.replace("session: {kind: fake}", "session:\n  kind: fake")
    for place in ("session", "output", "input"):
        lines = text.splitlines(keepends=True)
        after = next(
            index
            for index, found in enumerate(lines)
            if found.strip().startswith(
                {"session": "kind", "output": "url:", "input": "urls"}[place]
            )
        )
        lines.insert(after + 1, f"  storage_options:\n    {line}\n")
        spec = load_spec("".join(lines), source="job.yaml")
        assert getattr(spec, place).storage_options


@pytest.mark.parametrize("value", ["${SECRET}", "${env:SECRET}", "a${ENV:}b", "${ENV:1X}"])
def test_a_reference_that_is_none_is_refused(value: str) -> None:
    """It would go to the driver as it is."""
    [problem] = problems_of(JOB, f"input.storage_options.endpoint_url={value}")
    assert 'wanted "${ENV:NAME}"' in problem


def test_a_list_is_refused() -> None:
    """With what may stand there."""
    [problem] = problems_of(JOB, "input.storage_options.a={b: [1]}")
    assert "input.storage_options.a.b: found a list; wanted text, a number" in problem


def test_what_is_no_mapping_is_refused_without_quoting_it() -> None:
    """It may have been meant as a secret."""
    [problem] = problems_of(JOB, f"output.storage_options={SECRET}")
    assert "wanted a mapping" in problem


@pytest.mark.parametrize(
    "url",
    [
        f"sftp://bob:{SECRET}@host/a.jsonl",
        f"https://host/a.jsonl?X-Amz-Signature={SECRET}",
        f"https://host/a.jsonl?sv=1&sig={SECRET}",
        f"zip://a.jsonl::https://bob:{SECRET}@host/a.zip",
    ],
)
def test_a_url_with_a_secret_is_refused_wherever_it_stands(url: str) -> None:
    """An input (of several), the output, an artifact, twice the same, with a wrong placeholder."""
    text = JOB.replace('["s3://corpus/a.jsonl"]', f'["s3://corpus/a.jsonl", "{url}"]')
    assert problems_of(text)[0].startswith("job.yaml:4: input.urls[1]: found a URL with a password")
    assert problems_of(JOB, f"output.url={url}")
    assert problems_of(JOB, f"session.artifact={url}")
    problems_of(JOB, f"input.urls=['{url}', '{url}', '{url}{{dat}}', '{url}{{date}}']")


def test_a_user_or_an_at_sign_in_a_url_is_no_secret() -> None:
    """Only what stands between a colon and the sign."""
    for url in ("sftp://bob@host:22/a@b:c.jsonl", "s3://b/token=x/a.jsonl", "s3://b/a:b@c.jsonl"):
        load_spec(JOB, source="job.yaml", overrides=[f"input.urls=['{url}']"])


def test_a_chain_of_drivers_is_no_output() -> None:
    """With its line."""
    [problem] = problems_of(JOB.replace("s3://out/here", "simplecache::s3://out/here"))
    assert problem.startswith("job.yaml:8: output.url: found a chain of drivers")


def test_options_do_not_decide_the_bytes() -> None:
    """The same job with other credentials goes on with the same output."""
    plain = load_spec(JOB, source="job.yaml")
    other = load_spec(
        JOB, source="job.yaml", overrides=["input.storage_options={secret: '${ENV:S}', a: 1}"]
    )
    assert job_decides(plain, "sha256:0") == job_decides(other, "sha256:0")
    assert "storage_options" not in str(job_decides(other, "sha256:0"))


def test_references_are_resolved_at_any_depth_and_the_rest_stays() -> None:
    """A new value; the written one is as it was."""
    written = {"a": "x${ENV:A}y${ENV:B}", "b": {"c": {"d": "${ENV:A}"}}, "e": 1, "f": None}
    got = resolve_options(written, {"A": "1", "B": "${ENV:A}"})
    assert got == {"a": "x1y${ENV:A}", "b": {"c": {"d": "1"}}, "e": 1, "f": None}
    assert written["a"] == "x${ENV:A}y${ENV:B}"


def test_an_unset_variable_is_named_with_its_option() -> None:
    """Both are needed to repair it."""
    with pytest.raises(VariableUnset, match=r"client_kwargs\.x refers to NOPE"):
        resolve_options({"client_kwargs": {"x": "${ENV:NOPE}"}}, {})


def test_what_is_hidden_is_what_sounds_secret_or_is_long() -> None:
    """A user name such as root would otherwise vanish from every message."""
    options = {"username": "${ENV:WHO}", "secret": "${ENV:S}", "host": "${ENV:LONG}"}
    environment = {"WHO": "root", "S": "xy", "LONG": "a-long-value"}
    assert secrets_of(options, environment) == {"xy", "a-long-value"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"sftp://bob:{SECRET}@host/a", "sftp://bob:***@host/a"),
        (f"GET /a?X-Amz-Signature={SECRET}&b=1", "GET /a?X-Amz-Signature=***&b=1"),
        (f"AccountName=x;AccountKey={SECRET}==;End", "AccountName=x;AccountKey=***;End"),
        (f"{{'Authorization': 'Bearer {SECRET}'}}", "{'Authorization': 'Bearer ***'}"),
        ("token hf_abcdefghijklmnopqrstuvwx is bad", "token *** is bad"),
        ("s3://bucket/token=a/key=b.jsonl", "s3://bucket/token=a/key=b.jsonl"),
        ("Basic logic, bearer of news", "Basic logic, bearer of news"),
    ],
)
def test_known_shapes_are_hidden_and_plain_text_is_not(text: str, shown: str) -> None:
    """Hiding twice changes nothing more."""
    assert hide_secrets(text) == shown
    assert hide_secrets(shown) == shown


def test_known_values_are_hidden_as_they_are_and_as_in_a_url() -> None:
    """The longer one first, where one is in another."""
    assert hide_secrets("a/b+c, a%2Fb%2Bc, a/b", ["a/b", "a/b+c", ""]) == "***, ***, ***"


def test_names_that_sound_secret() -> None:
    """And those that only look so."""
    for name in ("key", "SECRET", "accountKey", "sas", "connection-string", "pkey", "auth"):
        assert is_secret_name(name), name
    for name in (
        "key_filename",
        "monkey",
        "token_file",
        "author",
        "keyspace",
        "use_ssl",
        "passive",
    ):
        assert not is_secret_name(name), name
