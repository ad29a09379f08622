"""Prompts to token ids, and token ids back to text.

Holds: the tokenizer of an artifact (transformers' own, read from the artifact's folder alone: no
network, no code from the folder) and the byte tokenizer of the fake session.
Promises: the ids of a prompt depend on the prompt, the artifact and the job's date; the wall clock
is never asked. What a row can get wrong is a RowError, in the same words wherever it is tried.
Does not: render a row into a prompt (``job/prompt.py``), or check lengths (``decode_loop.py``).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Protocol

from rdu_batch.errors import ArtifactError, RowError
from rdu_batch.job.records import Reason
from rdu_batch.sessions.fake import EOS_TOKEN_ID
from rdu_batch.sessions.library_versions import check_transformers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdu_batch.job.prompt import Prompt
    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.chat import ChatTemplate

_CONFIG_FILES: Final = ("generation_config.json", "config.json")
#: Files transformers reads a tokenizer from when they are there, listed by the artifact or not.
_TOKENIZER_FILES: Final = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "additional_chat_templates",
)


class PromptTokenizer(Protocol):
    """What the decode loop and the worker need of a tokenizer."""

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Tokens that end a generation; may be empty."""

    def encode(self, prompt: Prompt, *, date: str | None) -> list[int]:
        """Token ids of a prompt.

        A text gets the tokenizer's own special tokens. Messages go through the chat template, which
        writes its own, and end where the assistant's turn begins. What has no tokens at all becomes
        the tokenizer's BOS; where it has none, the ids are empty and the decode loop refuses them.

        Args:
            prompt: what a row was rendered to.
            date: ISO date that a chat template sees as today.

        Raises:
            RowError: ``not_unicode`` or ``template_error``. Ends the row.
            ArtifactError: messages, but the artifact has no usable chat template. Ends the job.
        """

    def encode_bare(self, text: str) -> list[int]:
        """Token ids of a text alone, without the tokenizer's own special tokens around it."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens; bytes that are no character are U+FFFD."""


class ByteTokenizer:
    """The fake session's tokenizer: one token a byte of UTF-8, and no BOS."""

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """The one token that is no byte."""
        return frozenset({EOS_TOKEN_ID})

    def encode(self, prompt: Prompt, *, date: str | None) -> list[int]:
        """UTF-8 bytes; messages become ``role: content`` lines; ``date`` changes nothing."""
        if prompt.messages is None:
            return list(utf8_of(prompt.text or ""))
        lines = [f"{one.get('role')}: {_plain(one.get('content'))}\n" for one in prompt.messages]
        return list(utf8_of("".join(lines) + "assistant: "))

    def encode_bare(self, text: str) -> list[int]:
        """UTF-8 bytes; there are no special tokens."""
        return list(utf8_of(text))

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of the bytes among ``token_ids``."""
        return bytes(one for one in token_ids if one < EOS_TOKEN_ID).decode("utf-8", "replace")


class ArtifactTokenizer:
    """transformers' tokenizer, exactly as AutoTokenizer loads it from the artifact's folder."""

    def __init__(self, artifact: LocalArtifact, *, chat: bool = False) -> None:
        """Load it. With ``chat``, an unusable chat template is found now, not at the first row."""
        self._artifact = artifact
        self._url = artifact.artifact.url
        self._tokenizer = _load(artifact)
        self._eos_token_ids = _eos_token_ids(artifact, self._tokenizer)
        self._chat: ChatTemplate | None = None
        if chat:
            self._chat_template()

    @property
    def eos_token_ids(self) -> frozenset[int]:
        """Those of generation_config.json, else of config.json, else the tokenizer's."""
        return self._eos_token_ids

    def encode(self, prompt: Prompt, *, date: str | None) -> list[int]:
        """Token ids of a prompt; see ``PromptTokenizer.encode``."""
        if prompt.messages is None:
            return self._ids(prompt.text or "", add_special_tokens=True)
        text = self._chat_template().render(prompt.messages, date=date)
        return self._ids(text, add_special_tokens=False)

    def encode_bare(self, text: str) -> list[int]:
        """Token ids of a text alone; see ``PromptTokenizer.encode_bare``."""
        ids: list[int] = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens and with its spaces as they are."""
        text: str = self._tokenizer.decode(
            list(token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def decode_whole(self, token_ids: Sequence[int]) -> str:
        """The text of token ids with special tokens, by transformers' own defaults."""
        text: str = self._tokenizer.decode(list(token_ids))
        return text

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        utf8_of(text)
        encoded = self._tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)
        ids: list[int] = encoded["input_ids"]
        bos_token_id: int | None = self._tokenizer.bos_token_id
        # A tokenizer that adds a BOS of its own never gives nothing, so none is there twice.
        return [bos_token_id] if not ids and bos_token_id is not None else ids

    def _chat_template(self) -> ChatTemplate:
        if self._chat is None:
            from rdu_batch.sessions.chat import ChatTemplate

            self._chat = ChatTemplate(self._tokenizer, url=self._url)
        return self._chat


def open_tokenizer(
    kind: str, artifact: LocalArtifact | None, *, chat: bool = False
) -> PromptTokenizer:
    """Open the tokenizer that goes with a session kind.

    Args:
        kind: a session kind; ``fake`` has the byte tokenizer, with any artifact or none.
        artifact: where every other kind's tokenizer lies.
        chat: the job's prompts are messages, so a chat template is required now.

    Raises:
        ArtifactError: no artifact, one made with another transformers, no tokenizer in it, or no
            usable chat template although ``chat`` asks for one. Ends the job (exit 8).
    """
    if kind == "fake":
        return ByteTokenizer()
    if artifact is None:
        raise ArtifactError(
            f"session.artifact is missing: the tokenizer of a {kind} session lies in its artifact; "
            "make one with `rdu-batch compile`"
        )
    return ArtifactTokenizer(artifact, chat=chat)


def utf8_of(text: str) -> bytes:
    """UTF-8 of a prompt's text.

    Raises:
        RowError: ``not_unicode``, the text holds half of a surrogate pair. Ends the row.
    """
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowError(
            Reason.NOT_UNICODE,
            f"character {error.start} of the prompt is U+{ord(text[error.start]):04X}, half of a "
            "surrogate pair, which is no character; repair the row",
        ) from error


def _plain(content: Any) -> str:
    if isinstance(content, str):
        return content
    return json.dumps(content, ensure_ascii=False, default=str)


def _load(artifact: LocalArtifact) -> Any:
    check_transformers(artifact.artifact)
    url, folder = artifact.artifact.url, artifact.folder
    unlisted = [
        name
        for name in _TOKENIZER_FILES
        if (folder / name).exists()
        and not any(one == name or one.startswith(f"{name}/") for one in artifact.artifact.files)
    ]
    if unlisted:
        raise ArtifactError(
            f"{url}: {', '.join(unlisted)} would change the tokenizer, but the artifact does not "
            "list it; remove it, or compile the model again"
        )
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        # Whatever transformers raises here, the folder is not a tokenizer it can read.
        raise ArtifactError(
            f"{url}: no tokenizer can be loaded from it: {type(error).__name__}: {error}; compile "
            "the model again, with --tokenizer if it has none of its own"
        ) from error


def _eos_token_ids(artifact: LocalArtifact, tokenizer: Any) -> frozenset[int]:
    for name in _CONFIG_FILES:
        if name not in artifact.artifact.files:
            continue
        try:
            found = json.loads(artifact.path(name).read_bytes()).get("eos_token_id")
        except (OSError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{artifact.artifact.url}: {name} cannot be read: {error}; compile the model again"
            ) from error
        ids = found if isinstance(found, list) else [found]
        if not all(one is None or type(one) is int for one in ids):
            raise ArtifactError(
                f"{artifact.artifact.url}: {name}: eos_token_id is {found!r}, wanted a number or a "
                "list of them; correct the checkpoint and compile it again"
            )
        if any(one is not None for one in ids):
            return frozenset(one for one in ids if one is not None)
    return frozenset(() if tokenizer.eos_token_id is None else (tokenizer.eos_token_id,))
