"""Token ids of prompts by ``tokenizers`` alone, to plan a job without torch or transformers.

Promises: the ids of the artifact's own tokenizer (``tokenizer.py``), wherever the artifact has a
``tokenizer.json``; what cannot be counted here is an ArtifactError that says why, and no ids.
Does not: decode, or run anything: a session's own tokenizer has the last word.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final, NoReturn

from rdu_batch.errors import ArtifactError, RowError, StoreError
from rdu_batch.sessions.chat import (
    DATE_STRING_FORMAT,
    Today,
    midnight_of,
    template_error,
)
from rdu_batch.sessions.tokenizer import ByteTokenizer, utf8_of

if TYPE_CHECKING:
    from rdu_batch.job.prompt import Prompt
    from rdu_batch.sessions.artifact import Artifact
    from rdu_batch.sessions.overflow import PromptEncoder

_TOKENIZER_FILE: Final = "tokenizer.json"
_CONFIG_FILE: Final = "tokenizer_config.json"
_TEMPLATE_FILE: Final = "chat_template.jinja"
#: Of tokenizer_config.json; variables of chat templates.
_SPECIAL_TOKENS: Final = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token")


def open_counting_tokenizer(
    kind: str, artifact: Artifact | None, *, chat: bool = False
) -> PromptEncoder:
    """Open the tokenizer that goes with a session kind, from the artifact's small files alone.

    Args:
        kind: a session kind; ``fake`` has the byte tokenizer.
        artifact: where every other kind's tokenizer lies.
        chat: prompts are messages.

    Raises:
        ArtifactError: tokens cannot be counted here; the message begins with "token counts".
    """
    if kind == "fake":
        return ByteTokenizer()
    if artifact is None:
        raise ArtifactError("token counts need an artifact")
    if _TOKENIZER_FILE not in artifact.files:
        raise ArtifactError(f"token counts need a {_TOKENIZER_FILE}, which {artifact.url} lacks")
    config = _read(artifact, _CONFIG_FILE)
    template = _read(artifact, _TEMPLATE_FILE) if chat else None
    try:
        return CountingTokenizer(
            _read(artifact, _TOKENIZER_FILE) or b"",
            json.loads(config or b"{}"),
            None if template is None else template.decode(),
            chat=chat,
        )
    except ArtifactError:
        raise
    except Exception as error:
        # tokenizers and Jinja raise what they like; counts are never needed.
        raise ArtifactError(f"token counts are not known: {artifact.url}: {error}") from error


class CountingTokenizer:
    """A ``tokenizer.json`` and a chat template."""

    def __init__(
        self, tokenizer: bytes, config: dict[str, Any], template: str | None, *, chat: bool
    ) -> None:
        """Load both.

        Raises:
            ArtifactError: a chat without a template.
        """
        from tokenizers import Tokenizer

        self._tokenizer = Tokenizer.from_str(tokenizer.decode())
        # A tokenizer may be saved with the lengths of its last use; prompts are counted whole.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._special = {
            name: token["content"] if isinstance(token, dict) else token
            for name in _SPECIAL_TOKENS
            if (token := config.get(name)) is not None
        }
        bos = self._special.get("bos_token")
        self._bos_token_id = None if bos is None else self._tokenizer.token_to_id(bos)
        self._template: Any = None
        if chat:
            source = template if template is not None else config.get("chat_template")
            if not isinstance(source, str):
                raise ArtifactError("token counts of a chat need a chat template, one alone")
            self._template = _environment().from_string(source)

    def encode(self, prompt: Prompt, *, date: str | None) -> list[int]:
        """Token ids of a prompt; see ``PromptTokenizer.encode``."""
        if prompt.messages is None:
            return self._ids(prompt.text or "", add_special_tokens=True)
        text = self._render(prompt.messages, date)
        return self._ids(text, add_special_tokens=False)

    def encode_bare(self, text: str) -> list[int]:
        """Token ids of a text alone; see ``PromptTokenizer.encode_bare``."""
        return self._encoded(text, add_special_tokens=False)

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        utf8_of(text)
        ids = self._encoded(text, add_special_tokens=add_special_tokens)
        return [self._bos_token_id] if not ids and self._bos_token_id is not None else ids

    def _encoded(self, text: str, *, add_special_tokens: bool) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids
        return ids

    def _render(self, messages: tuple[dict[str, Any], ...], date: str | None) -> str:
        today = None if date is None else midnight_of(date)
        self._template.globals["strftime_now"] = Today(today)
        dated = {} if today is None else {"date_string": today.strftime(DATE_STRING_FORMAT)}
        try:
            text: str = self._template.render(
                messages=list(messages),
                add_generation_prompt=True,
                tools=None,
                documents=None,
                **self._special,
                **dated,
            )
        except (RowError, MemoryError):
            raise
        except Exception as error:
            # A template is a program over the row's own values: any exception is about this row.
            raise template_error(str(error)) from error
        return text


def _read(artifact: Artifact, name: str) -> bytes | None:
    """A listed file of the artifact, None if there is none of the name; checked."""
    from rdu_batch.storage.store import open_store

    if name not in artifact.files:
        return None
    try:
        content = open_store(artifact.url).read(name)
    except StoreError as error:
        raise ArtifactError(f"token counts are not known: {error}") from error
    if hashlib.sha256(content).hexdigest() != artifact.files[name].sha256:
        raise ArtifactError(f"token counts are not known: {artifact.url}: {name} is damaged")
    return content


def _environment() -> Any:
    """Jinja as chat templates expect it, by transformers' documentation."""
    import jinja2
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    def to_json(value: Any, **options: Any) -> str:
        return json.dumps(value, **{"ensure_ascii": False, **options})

    def raise_exception(message: str) -> NoReturn:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = raise_exception
    return environment
