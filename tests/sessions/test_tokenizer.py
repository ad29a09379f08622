"""Prompts to ids: transformers itself is the oracle, and no clock is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoTokenizer

from rdu_batch.errors import ArtifactError, RowError
from rdu_batch.job.prompt import Prompt
from rdu_batch.job.records import Reason
from rdu_batch.sessions.fake import EOS_TOKEN_ID
from rdu_batch.sessions.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.artifact import LocalArtifact

    MakeArtifact = Callable[..., LocalArtifact]

TODAY = "{{ strftime_now('%d %b %Y') }}"
#: The way Llama 3's templates ask.
LLAMA_TODAY = (
    "{% if not date_string is defined %}{% if strftime_now is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% else %}"
    "{% set date_string = '26 Jul 2024' %}{% endif %}{% endif %}Today: {{ date_string }}"
)


def messages(*contents: str) -> Prompt:
    return Prompt(None, tuple({"role": "user", "content": content} for content in contents))


def text(content: str) -> Prompt:
    return Prompt(content, None)


def caught_reason(tokenizer: Any, prompt: Prompt, date: str | None = None) -> RowError:
    with pytest.raises(RowError) as caught:
        tokenizer.encode(prompt, date=date)
    return caught.value


@pytest.mark.parametrize("style", ["byte_level", "byte_fallback"])
@pytest.mark.parametrize(
    "content", ["", "hello there", " two  spaces \n", "Grüße 你好 \U0001f600", "<|im_end|> inside"]
)
def test_a_text_is_tokenized_as_transformers_does(
    tokenizer_artifact: MakeArtifact, style: str, content: str
) -> None:
    """With the tokenizer's own special tokens."""
    artifact = tokenizer_artifact(style)
    oracle = AutoTokenizer.from_pretrained(artifact.folder)
    tokenizer = open_tokenizer("inductor", artifact)
    found = tokenizer.encode(text(content), date=None)
    assert found == (oracle(content)["input_ids"] or [oracle.bos_token_id])
    if style == "byte_level":
        assert found[0] == oracle.bos_token_id


@pytest.mark.parametrize("style", ["byte_level", "byte_fallback"])
def test_an_empty_text_is_one_bos(tokenizer_artifact: MakeArtifact, style: str) -> None:
    """Whether the tokenizer adds one by itself (the first does) or not."""
    artifact = tokenizer_artifact(style)
    oracle = AutoTokenizer.from_pretrained(artifact.folder)
    assert len(oracle("")["input_ids"]) == (1 if style == "byte_level" else 0)
    tokenizer = open_tokenizer("inductor", artifact)
    assert tokenizer.encode(text(""), date=None) == [oracle.bos_token_id]
    assert tokenizer.encode(text("a"), date=None) == oracle("a")["input_ids"]


def test_a_chat_that_renders_to_nothing_is_one_bos_too(tokenizer_artifact: MakeArtifact) -> None:
    """The template writes the special tokens, but it wrote none."""
    artifact = tokenizer_artifact(chat_template="{{ messages[0].content }}")
    oracle = AutoTokenizer.from_pretrained(artifact.folder)
    tokenizer = open_tokenizer("inductor", artifact, chat=True)
    assert tokenizer.encode(messages(""), date=None) == [oracle.bos_token_id]


def test_an_empty_text_has_no_tokens_where_the_tokenizer_has_no_bos(
    tokenizer_artifact: MakeArtifact, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """The decode loop makes a dead letter of it."""
    folder = tokenizer_artifact("byte_fallback").folder
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"bos_token": None}))
    assert AutoTokenizer.from_pretrained(folder).bos_token_id is None
    tokenizer = open_tokenizer("inductor", artifact_of(folder))
    assert tokenizer.encode(text(""), date=None) == []
    assert tokenizer.encode(text("a"), date=None)


def test_messages_are_tokenized_as_transformers_does_with_one_bos(
    tokenizer_artifact: MakeArtifact, chat_template: str
) -> None:
    """The template writes the bos, so the tokenizer must not."""
    artifact = tokenizer_artifact(chat_template=chat_template)
    oracle = AutoTokenizer.from_pretrained(artifact.folder)
    tokenizer = open_tokenizer("inductor", artifact, chat=True)
    prompt = messages("hello there", "one two")
    found = tokenizer.encode(prompt, date=None)
    assert prompt.messages is not None
    assert found == oracle.apply_chat_template(
        list(prompt.messages), add_generation_prompt=True, return_dict=False
    )
    assert found.count(oracle.bos_token_id) == 1
    assert oracle.decode(found).endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("template", [TODAY, LLAMA_TODAY])
def test_a_chat_template_sees_the_date_of_the_job(
    tokenizer_artifact: MakeArtifact, template: str
) -> None:
    """And not that of the wall clock, whichever way it asks."""
    tokenizer = open_tokenizer("inductor", tokenizer_artifact(chat_template=template), chat=True)
    for date, wanted in (("2001-02-03", "03 Feb 2001"), ("1999-12-31", "31 Dec 1999")):
        found = tokenizer.decode(tokenizer.encode(messages("x"), date=date))
        assert found.removeprefix("Today: ") == wanted


@pytest.mark.parametrize("template", [TODAY, LLAMA_TODAY])
def test_a_chat_template_that_asks_for_a_date_the_job_lacks_ends_the_row(
    tokenizer_artifact: MakeArtifact, template: str
) -> None:
    """Also after a row, or another tokenizer, that had a date."""
    artifact = tokenizer_artifact(chat_template=template)
    tokenizer = open_tokenizer("inductor", artifact, chat=True)
    tokenizer.encode(messages("x"), date="2001-02-03")
    open_tokenizer("inductor", artifact, chat=True).encode(messages("x"), date="2001-02-03")
    error = caught_reason(tokenizer, messages("x"))
    assert error.reason == Reason.TEMPLATE_ERROR
    assert "set prompt.date" in error.detail


def test_a_date_changes_nothing_for_a_template_that_does_not_ask(
    tokenizer_artifact: MakeArtifact, chat_template: str
) -> None:
    """Most templates do not."""
    artifact = tokenizer_artifact(chat_template=chat_template)
    tokenizer = open_tokenizer("inductor", artifact, chat=True)
    with_date = tokenizer.encode(messages("x"), date="2001-02-03")
    assert with_date == tokenizer.encode(messages("x"), date=None)


def test_a_template_that_refuses_messages_ends_the_row_in_its_own_words(
    tokenizer_artifact: MakeArtifact, chat_template: str
) -> None:
    """What a template raises is about the row."""
    artifact = tokenizer_artifact(chat_template=chat_template)
    tokenizer = open_tokenizer("inductor", artifact, chat=True)
    error = caught_reason(tokenizer, Prompt(None, ({"role": "robot", "content": "x"},)))
    assert error.reason == Reason.TEMPLATE_ERROR
    assert error.detail == (
        "the chat template cannot render these messages: robots are not welcome"
    )


@pytest.mark.parametrize(
    ("template", "prompt"),
    [
        ("{{ messages[0].content + 1 }}", messages("x")),
        ("{{ messages[0].tools.names }}", messages("x")),
        ("{{ messages[0].content.__class__.__mro__ }}", messages("x")),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", messages("x")),
        ("{% for i in range(9999999) %}{% endfor %}", messages("x")),
        ("fine", Prompt(None, ())),
        ("fine", Prompt(None, ("not an object",))),  # type: ignore[arg-type]
        ("fine", Prompt(None, ([{"role": "user"}],))),  # type: ignore[arg-type]
        ("{{ messages[0].content }}", messages("\ud83d half")),
    ],
)
def test_what_a_row_can_do_to_a_template_ends_the_row_in_the_same_words(
    tokenizer_artifact: MakeArtifact, template: str, prompt: Prompt
) -> None:
    """Never the job, and no memory address shows."""
    tokenizer = open_tokenizer("inductor", tokenizer_artifact(chat_template=template), chat=True)
    first, again = caught_reason(tokenizer, prompt), caught_reason(tokenizer, prompt)
    assert first.reason in {Reason.TEMPLATE_ERROR, Reason.NOT_UNICODE}
    assert first.detail == again.detail
    assert len(first.detail) < 700


def test_a_detail_shows_no_memory_address(tokenizer_artifact: MakeArtifact) -> None:
    """An address would differ from worker to worker."""
    template = "{{ raise_exception(messages[0].content.upper | string) }}"
    tokenizer = open_tokenizer("inductor", tokenizer_artifact(chat_template=template), chat=True)
    assert "at 0x...>" in caught_reason(tokenizer, messages("x")).detail


def test_messages_without_a_chat_template_are_refused_at_opening(
    tokenizer_artifact: MakeArtifact,
) -> None:
    """Before any row is read; text prompts still work with the same artifact."""
    artifact = tokenizer_artifact()
    with pytest.raises(ArtifactError, match="no chat template"):
        open_tokenizer("inductor", artifact, chat=True)
    tokenizer = open_tokenizer("inductor", artifact)
    assert tokenizer.encode(text("hello"), date=None)
    with pytest.raises(ArtifactError, match="no chat template"):
        tokenizer.encode(messages("hello"), date=None)


def test_a_chat_template_with_a_syntax_error_is_refused_at_opening(
    tokenizer_artifact: MakeArtifact,
) -> None:
    """It is the artifact's fault, not a row's."""
    with pytest.raises(ArtifactError, match="chat template cannot be used"):
        open_tokenizer("inductor", tokenizer_artifact(chat_template="{% if %}"), chat=True)


@pytest.mark.parametrize("kind", ["inductor", "fake"])
def test_half_of_a_surrogate_pair_ends_the_row(tokenizer_artifact: MakeArtifact, kind: str) -> None:
    """JSON can hold one, UTF-8 cannot."""
    tokenizer = open_tokenizer(kind, tokenizer_artifact())
    error = caught_reason(tokenizer, text("ab\ud83d"))
    assert error.reason == Reason.NOT_UNICODE
    assert "character 2 of the prompt is U+D83D" in error.detail


def test_decoding_skips_special_tokens_and_keeps_spaces(tokenizer_artifact: MakeArtifact) -> None:
    """No cleaning up: a space before a full stop is the model's own."""
    artifact = tokenizer_artifact()
    oracle = AutoTokenizer.from_pretrained(artifact.folder)
    tokenizer = open_tokenizer("inductor", artifact)
    content = "well , it 's odd . Grüße 你好"
    ids = oracle(content + "<|im_end|>")["input_ids"]
    assert ids[0] == oracle.bos_token_id
    assert tokenizer.decode([*ids, oracle.eos_token_id]) == content


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({}, {1}),
        ({"config": {"eos_token_id": 7}}, {7}),
        ({"config": {"eos_token_id": 7}, "generation_config": {"eos_token_id": [3, 4]}}, {3, 4}),
        ({"config": {"eos_token_id": 7}, "generation_config": {"eos_token_id": None}}, {7}),
        ({"config": {"eos_token_id": [0]}, "generation_config": {}}, {0}),
    ],
)
def test_eos_comes_from_the_generation_config_then_config_then_tokenizer(
    tokenizer_artifact: MakeArtifact, files: dict[str, Any], wanted: set[int]
) -> None:
    """One id or several."""
    assert open_tokenizer("inductor", tokenizer_artifact(**files)).eos_token_ids == wanted


def test_an_eos_that_is_no_number_is_refused(tokenizer_artifact: MakeArtifact) -> None:
    """Rather than generating to the limit for every row."""
    with pytest.raises(ArtifactError, match="eos_token_id is '</s>'"):
        open_tokenizer("inductor", tokenizer_artifact(config={"eos_token_id": "</s>"}))


def test_a_file_that_the_artifact_does_not_list_cannot_change_the_tokenizer(
    tokenizer_artifact: MakeArtifact,
) -> None:
    """Else transformers would read it, and the artifact's digest would not know."""
    artifact = tokenizer_artifact()
    (artifact.folder / "chat_template.jinja").write_text("another template")
    with pytest.raises(ArtifactError, match=r"chat_template\.jinja would change the tokenizer"):
        open_tokenizer("inductor", artifact)


def test_code_in_the_artifact_is_never_run(
    tokenizer_artifact: MakeArtifact, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """Not even when the tokenizer says it needs some."""
    folder = tokenizer_artifact().folder
    (folder / "evil.py").write_text("raise SystemExit('code of the artifact was run')")
    config = json.loads((folder / "tokenizer_config.json").read_text())
    config |= {"auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}, "tokenizer_class": "Evil"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    with pytest.raises(ArtifactError, match="no tokenizer can be loaded"):
        open_tokenizer("inductor", artifact_of(folder))


def test_a_folder_without_a_tokenizer_says_so(
    tmp_path: Any, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """With the option that adds one."""
    with pytest.raises(ArtifactError, match="--tokenizer"):
        open_tokenizer("inductor", artifact_of(tmp_path))
    with pytest.raises(ArtifactError, match=r"session\.artifact is missing"):
        open_tokenizer("inductor", None)


@pytest.mark.parametrize("content", ["", "hello", "Grüße 你好 \U0001f600", "\x00\xff"])
def test_the_byte_tokenizer_gives_text_back_as_it_was(content: str) -> None:
    """One token a byte; eos is no byte."""
    tokenizer = open_tokenizer("fake", None)
    ids = tokenizer.encode(text(content), date=None)
    assert ids == list(content.encode())
    assert tokenizer.decode([*ids, EOS_TOKEN_ID]) == content
    assert tokenizer.eos_token_ids == {EOS_TOKEN_ID}


def test_the_byte_tokenizer_writes_messages_as_lines() -> None:
    """Content of parts is written as JSON."""
    tokenizer = open_tokenizer("fake", None, chat=True)
    prompt = Prompt(
        None,
        (
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        ),
    )
    assert tokenizer.decode(tokenizer.encode(prompt, date=None)) == (
        'system: Be brief.\nuser: [{"type": "text", "text": "Hi"}]\nassistant: '
    )
