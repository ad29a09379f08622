"""Token ids without transformers: transformers' own are the oracle."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.errors import ArtifactError, RowError
from rdu_batch.job.prompt import Prompt
from rdu_batch.sessions.artifact import LocalArtifact
from rdu_batch.sessions.counting_tokenizer import open_counting_tokenizer
from rdu_batch.sessions.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Callable

    MakeArtifact = Callable[..., LocalArtifact]

TEXTS = [
    "",
    "hello there",
    " two  spaces \n",
    "Gr\u00fc\u00dfe \u4f60",
    "<|bos|>a<|im_end|>",
    "a\ufb01",
]
TEMPLATE = (
    "{{- bos_token }}\n{% for message in messages %}\n    {%- if loop.index > 9 %}{% break %}"
    "{% endif %}{{ message | tojson }}\n{% endfor %}"
    "{% if date_string is defined %}{{ date_string }}{% endif %}"
    "{{ strftime_now('%Y') if messages | length > 1 }}"
)


def both(artifact: LocalArtifact, *, chat: bool = False) -> tuple[Any, Any]:
    """The counting tokenizer, and the sessions' own."""
    counting = open_counting_tokenizer("inductor", artifact.artifact, chat=chat)
    return counting, open_tokenizer("inductor", artifact, chat=chat)


@pytest.mark.parametrize("style", ["byte_level", "byte_fallback"])
def test_texts_have_the_ids_that_a_session_gets(
    tokenizer_artifact: MakeArtifact, style: str
) -> None:
    """Special tokens around them, and without."""
    counting, own = both(tokenizer_artifact(style))
    for text in TEXTS:
        assert counting.encode(Prompt(text, None), date=None) == own.encode(
            Prompt(text, None), date=None
        )
        assert counting.encode_bare(text) == own.encode_bare(text)


@pytest.mark.parametrize("template", [TEMPLATE, None])
def test_chats_have_the_ids_that_a_session_gets(
    tokenizer_artifact: MakeArtifact, chat_template: str, template: str | None
) -> None:
    """Blocks are trimmed, objects are JSON, and today is the job's date."""
    counting, own = both(tokenizer_artifact(chat_template=template or chat_template), chat=True)
    for contents in (["hello <there>"], ["one", "Gr\u00fc\u00dfe"]):
        prompt = Prompt(None, tuple({"role": "user", "content": text} for text in contents))
        found = counting.encode(prompt, date="2001-02-03")
        assert found == own.encode(prompt, date="2001-02-03")


def test_a_chat_that_is_refused_is_refused_in_the_same_words(
    tokenizer_artifact: MakeArtifact, chat_template: str
) -> None:
    """The dead letter of the run."""
    prompt = Prompt(None, ({"role": "robot", "content": "x"},))
    said = set()
    for tokenizer in both(tokenizer_artifact(chat_template=chat_template), chat=True):
        with pytest.raises(RowError) as caught:
            tokenizer.encode(prompt, date=None)
        said.add(str(caught.value))
    assert len(said) == 1


def test_what_cannot_be_counted_says_so(
    tokenizer_artifact: MakeArtifact, artifact_of: Callable[..., LocalArtifact]
) -> None:
    """No chat template; a damaged file; no tokenizer.json at all; no artifact."""
    artifact = tokenizer_artifact()
    with pytest.raises(ArtifactError, match="token counts of a chat"):
        open_counting_tokenizer("inductor", artifact.artifact, chat=True)
    path = artifact.folder / "tokenizer.json"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ArtifactError, match=r"tokenizer\.json is damaged"):
        open_counting_tokenizer("inductor", artifact.artifact)
    path.unlink()
    with pytest.raises(ArtifactError, match=r"need a tokenizer\.json"):
        open_counting_tokenizer("inductor", artifact_of(artifact.folder).artifact)
    with pytest.raises(ArtifactError, match="need an artifact"):
        open_counting_tokenizer("inductor", None)


def test_counting_imports_neither_torch_nor_transformers(tokenizer_artifact: MakeArtifact) -> None:
    """Planning starts at once."""
    artifact = tokenizer_artifact(chat_template=TEMPLATE)
    (artifact.folder / "artifact.json").write_bytes(artifact.artifact.to_bytes())
    code = (
        "import sys\nfrom rdu_batch.sessions.counting_tokenizer import open_counting_tokenizer\n"
        "from rdu_batch.sessions.artifact_store import read_artifact\n"
        "from rdu_batch.job.prompt import Prompt\nimport json, rdu_batch.runner.outlook\n"
        "prompt = Prompt(None, ({'role': 'user', 'content': 'x'},))\n"
        "found = open_counting_tokenizer('inductor', read_artifact(sys.argv[1]), chat=True)\n"
        "print(json.dumps(found.encode(prompt, date=None)))\n"
        "assert not {'torch', 'transformers', 'ray'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(artifact.folder)], capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len(json.loads(done.stdout)) > 1
