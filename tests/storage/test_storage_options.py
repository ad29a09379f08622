"""Options of a job reach the stores that it opens, resolved at each opening, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import StoreError
from rdu_batch.job.spec import JobSpec
from rdu_batch.storage.options_in_force import options_of, use_storage_options, without_secrets
from rdu_batch.storage.store import open_store
from tests.storage import servers
from tests.storage.file_site import REPO, serve_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.storage.conftest import Place


@pytest.fixture
def use() -> Iterator[Callable[..., None]]:
    """Puts the options of a job in force; none after the test."""

    def put(inputs: list[str], output: str, artifact: str | None, **options: Any) -> None:
        session = {"kind": "fake", "artifact": artifact}
        document = {
            "version": 1,
            "name": "test",
            "input": {"urls": inputs, "storage_options": options.get("of_input", {})},
            "prompt": {"field": "text"},
            "session": {**session, "storage_options": options.get("of_session", {})},
            "output": {"url": output, "storage_options": options.get("of_output", {})},
        }
        use_storage_options(JobSpec.model_validate(document))

    yield put
    put(["/in"], "/out", None)


def test_a_url_gets_the_options_of_the_nearest_of_the_jobs_folders(
    use: Callable[..., None],
) -> None:
    """An output inside of the folder of the inputs has its own; strangers have none."""
    use(
        ["s3://b/in/*/x.jsonl", "zip://a/*.jsonl::s3://c/x.zip", "sftp://h/one.jsonl"],
        "s3://b/in/out/",
        "s3://models/one",
        of_input={"who": "input"},
        of_output={"who": "output"},
        of_session={"who": "session"},
    )
    for url, who in {
        "s3://b/in": "input",
        "s3://b/in/x": "input",
        "s3://b/in/outer": "input",
        "s3://b/in/out": "output",
        "s3://b/in/out/_run": "output",
        "s3://models/one": "session",
        "zip://a::s3://c/x.zip": "input",
        "sftp://h": "input",
    }.items():
        assert options_of(url) == {"who": who}, url
    for url in ("s3://b", "s3://other", "s3://c/x.zip", "s3://models", "sftp://h2/x"):
        assert options_of(url) == {}, url


def test_another_job_forgets_the_options_of_the_first(use: Callable[..., None]) -> None:
    """One process works on one job."""
    use(["/in"], "s3://b/out", None, of_output={"a": 1})
    assert options_of("s3://b/out") == {"a": 1}
    use(["/in"], "s3://b/other", None, of_output={"a": 2})
    assert options_of("s3://b/out") == {}


def test_a_reference_is_resolved_at_each_opening(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token that was renewed in between is the new one."""
    use(["/in"], "s3://b/out", None, of_output={"token": "${ENV:TEST_TOKEN}"})
    for value in ("first", "second"):
        monkeypatch.setenv("TEST_TOKEN", value)
        assert options_of("s3://b/out") == {"token": value}
        assert without_secrets(f"bad token {value}") == "bad token ***"


def test_an_unset_variable_is_named(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before anything is asked of the store."""
    monkeypatch.delenv("TEST_TOKEN", raising=False)
    use(["/in"], "s3://b/out", None, of_output={"client_kwargs": {"x": "${ENV:TEST_TOKEN}"}})
    with pytest.raises(StoreError, match=r"variable TEST_TOKEN is not set.*client_kwargs\.x"):
        open_store("s3://b/out")


def test_a_password_in_a_url_is_refused_and_not_said() -> None:
    """Verbs that take a URL show it in what they say."""
    with pytest.raises(StoreError, match="there is a password") as caught:
        open_store("sftp://bob:hunter2@127.0.0.1:9/x")
    assert "hunter2" not in str(caught.value)


@pytest.mark.servers
def test_a_wrong_password_is_denied_and_not_said(
    place_on: Callable[[str], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a server that checks it; the right one is taken."""
    place = place_on("webdav")
    monkeypatch.setenv("TEST_WEBDAV_PASSWORD", "not the right one")
    place.use()
    with pytest.raises(StoreError, match="access denied") as caught:
        open_store(place.url).put_whole("x", b"1")
    assert "not the right one" not in str(caught.value)
    monkeypatch.setenv("TEST_WEBDAV_PASSWORD", servers.WEBDAV_PASSWORD)
    open_store(place.url).put_whole("x", b"1")


def test_a_hub_gets_its_token_from_the_options(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And without it the reading fails, without a word of it."""
    monkeypatch.setenv("TEST_HUB_TOKEN", "planted-secret")
    with serve_files({"a.jsonl": b"12345"}) as site:
        site.authorization = "Bearer planted-secret"
        url = f"hf://datasets/{REPO}"
        options = {"endpoint": site.url, "token": "${ENV:TEST_HUB_TOKEN}"}
        use([f"{url}/a.jsonl"], "/out", None, of_input=options)
        store = open_store(url)
        assert store.read_range("a.jsonl", 1, 4) == b"234"
        assert store.list_names("") == ["a.jsonl"]
        site.authorization = "Bearer another"
        with pytest.raises(StoreError) as caught:
            store.read("a.jsonl")
        assert "planted-secret" not in str(caught.value)


def test_an_http_server_gets_its_headers_from_the_options(
    use: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mapping within a mapping goes to the driver as it is."""
    monkeypatch.setenv("TEST_HTTP_TOKEN", "planted-secret")
    with serve_files({"a.jsonl": b"12345"}) as site:
        site.authorization = "Bearer planted-secret"
        headers = {"Authorization": "Bearer ${ENV:TEST_HTTP_TOKEN}"}
        options = {"client_kwargs": {"headers": headers}}
        use([f"{site.url}/a.jsonl"], "/out", None, of_input=options)
        assert open_store(site.url).read("a.jsonl") == b"12345"
        use(["/in"], "/out", None)
        with pytest.raises(StoreError, match="access denied"):
            open_store(site.url).read("a.jsonl")
