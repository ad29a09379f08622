"""What is cut of a prompt that leaves too little room, with real tokenizers and the byte one."""

from __future__ import annotations

import unicodedata
from typing import TYPE_CHECKING, Any

import pytest
from transformers import AutoTokenizer

from rdu_batch.errors import RowError
from rdu_batch.job.prompt import Prompt
from rdu_batch.sessions.overflow import FittedPrompt, Overflow, fit_prompt
from rdu_batch.sessions.tokenizer import ByteTokenizer, open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    from rdu_batch.sessions.artifact import LocalArtifact

    MakeArtifact = Callable[..., LocalArtifact]

SIDES: tuple[Overflow, ...] = ("truncate_left", "truncate_right")


def chat(*contents: str, role: str = "user") -> Prompt:
    return Prompt(None, tuple({"role": role, "content": content} for content in contents))


def fit(tokenizer: Any, prompt: Prompt, overflow: Overflow, length: int, new: int) -> FittedPrompt:
    ids = tokenizer.encode(prompt, date=None)
    return fit_prompt(
        *(tokenizer, prompt, ids, overflow), date=None, max_seq_length=length, max_new_tokens=new
    )


def test_bytes_are_cut_at_the_side_that_is_asked_for() -> None:
    """To what leaves room for all new tokens; a prompt that fits is left alone."""
    tokenizer, prompt = ByteTokenizer(), Prompt("0123456789", None)
    assert fit(tokenizer, prompt, "truncate_left", 12, 5) == (list(b"3456789"), 3)
    assert fit(tokenizer, prompt, "truncate_right", 12, 5) == (list(b"0123456"), 3)
    assert fit(tokenizer, prompt, "truncate_right", 15, 5) == (list(b"0123456789"), 0)
    assert fit(tokenizer, prompt, "error", 12, 5) == (list(b"0123456789"), 0)


def test_where_new_tokens_take_all_the_room_one_is_left_for_them() -> None:
    """Such a prompt is cut as little as a session allows, or not at all."""
    tokenizer = ByteTokenizer()
    assert fit(tokenizer, Prompt("0123456789", None), "truncate_right", 6, 6) == (list(b"01234"), 5)
    assert fit(tokenizer, Prompt("0123456789", None), "truncate_left", 6, 99) == (list(b"56789"), 5)
    assert fit(tokenizer, Prompt("01234", None), "truncate_left", 6, 99) == (list(b"01234"), 0)


@pytest.mark.parametrize("overflow", SIDES)
@pytest.mark.parametrize("style", ["byte_level", "byte_fallback"])
def test_a_bos_stays_and_tokens_of_the_text_are_cut(
    tokenizer_artifact: MakeArtifact, style: str, overflow: Overflow
) -> None:
    """Transformers says which tokens those are; a bos that the text itself begins with may go."""
    artifact = tokenizer_artifact(style)
    oracle = AutoTokenizer.from_pretrained(artifact.folder)
    tokenizer = open_tokenizer("inductor", artifact)
    for text in ("the quick brown fox jumps over the lazy dog", "<|bos|><|bos|> the quick brown"):
        own = oracle(text, add_special_tokens=False)["input_ids"]
        added = [oracle.bos_token_id] if style == "byte_level" else []
        kept = 6 - len(added)
        wanted = own[-kept:] if overflow == "truncate_left" else own[:kept]
        found = fit(tokenizer, Prompt(text, None), overflow, 20, 14)
        assert found == ([*added, *wanted], len(own) - kept)


@pytest.mark.parametrize("overflow", SIDES)
def test_tokens_that_are_added_at_the_end_stay_too(
    tokenizer_artifact: MakeArtifact, overflow: Overflow
) -> None:
    """As encoders of another family have them."""
    from tokenizers import Tokenizer, processors

    artifact = tokenizer_artifact()
    path = artifact.folder / "tokenizer.json"
    plain = Tokenizer.from_file(str(path))
    plain.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A <|eos|>", special_tokens=[("<|bos|>", 0), ("<|eos|>", 1)]
    )
    plain.save(str(path))
    found = fit(
        open_tokenizer("inductor", artifact), Prompt("one two " * 9, None), overflow, 20, 14
    )
    assert (found.ids[0], found.ids[-1], len(found.ids)) == (0, 1, 6)


@pytest.mark.parametrize("overflow", SIDES)
def test_of_a_chat_the_last_user_message_is_cut_as_little_as_fits(
    tokenizer_artifact: MakeArtifact, chat_template: str, overflow: Overflow
) -> None:
    """Every other part of the template is whole; one more character would be too long."""
    tokenizer: Any = open_tokenizer(
        "inductor", tokenizer_artifact(chat_template=chat_template), chat=True
    )
    content = "".join(f"{number} tokens, " for number in range(40))
    messages = (
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": content},
        {"role": "assistant", "content": "three"},
    )
    found = fit(tokenizer, Prompt(None, messages), overflow, 100, 20)
    assert len(found.ids) <= 80
    whole = tokenizer.encode(Prompt(None, messages), date=None)
    assert found.num_cut_tokens == len(whole) - len(found.ids)

    def cut(num_chars: int) -> list[int]:
        kept = content[-num_chars:] if overflow == "truncate_left" else content[:num_chars]
        shorter = (*messages[:3], {"role": "user", "content": kept}, messages[4])
        ids: list[int] = tokenizer.encode(Prompt(None, shorter), date=None)
        return ids

    (num_chars,) = [n for n in range(1, len(content)) if cut(n) == found.ids]
    assert len(cut(num_chars + 1)) > 80


@pytest.mark.parametrize(
    "prompt", [chat("x" * 99, role="assistant"), chat("a" * 40, "b"), Prompt("\u20ac" * 9, None)]
)
def test_a_row_of_which_nothing_would_be_left_is_too_long(prompt: Prompt) -> None:
    """No user message; another message that is too long; and no room at all."""
    length = 30 if prompt.messages else 1
    with pytest.raises(RowError, match=r"prompt\.overflow cannot cut") as caught:
        fit(ByteTokenizer(), prompt, "truncate_right", length, 4)
    assert caught.value.reason == "prompt_too_long"


@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC"])
def test_text_is_not_normalized(tokenizer_artifact: MakeArtifact, form: Any) -> None:
    """Forms of one text are prompts of their own, up to what the model's tokenizer does itself."""
    text = unicodedata.normalize(form, "caf\u00e9 \ufb01n \u212b")
    artifact = tokenizer_artifact()
    found = open_tokenizer("inductor", artifact).encode(Prompt(text, None), date=None)
    assert AutoTokenizer.from_pretrained(artifact.folder).decode(found[1:]) == text
    assert ByteTokenizer().encode(Prompt(text, None), date=None) == list(text.encode())
