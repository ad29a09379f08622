"""Is the model that a command names the one an artifact was compiled from?

The tutorial's ``run`` is told config and tokenizer again, and builds the model of them anew. Here
both lie in the artifact; what the command says is compared with them, and a difference refused.
Promises: nothing is downloaded for a comparison. Does not: compare weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from rdu_batch.errors import InputError, UsageError
from rdu_batch.sessions.checkpoint import is_path

if TYPE_CHECKING:
    from rdu_batch.sessions.artifact import LocalArtifact

#: What a config says of its file or of the artifact's own choices (dtype, --gelu), not of a model.
_NOT_COMPARED: Final = frozenset(
    {
        *("dtype", "torch_dtype", "transformers_version", "architectures", "_name_or_path"),
        *("activation_function", "hidden_act", "hidden_activation"),
    }
)
#: Differences named in one error.
_NUM_LISTED: Final = 8


def check_same_model(
    local: LocalArtifact, *, config_name: str | None, tokenizer_name: str | None
) -> list[str]:
    """Compare what is named with what the artifact holds; gives back what was not compared.

    Args:
        local: the artifact.
        config_name: a config.json or a folder; a hub id is not looked up.
        tokenizer_name: a folder or .gguf file; a hub id is not looked up.

    Raises:
        UsageError: the model or the tokenizer is another one. Ends the command (exit 2).
        InputError: what is named cannot be read, or is a path and not there (exit 4).
    """
    skipped = []
    for flag, name, check in (
        ("--config_name", config_name, _check_config),
        ("--model_name_or_path", tokenizer_name, _check_tokenizer),
    ):
        if name is None:
            continue
        path = Path(name).expanduser()
        if path.exists():
            check(local, path)
        elif is_path(name):
            raise InputError(
                f"{flag} {name}: there is no such file or folder; correct the path, or leave "
                f"{flag} out, as the artifact holds its own"
            )
        else:
            skipped.append(f"{flag} {name}: not looked up; the artifact holds its own")
    return skipped


def _check_config(local: LocalArtifact, path: Path) -> None:
    from rdu_batch.sessions.plain_model import read_config

    named, held = read_config(path).to_dict(), read_config(local.folder).to_dict()
    differences = [
        f"{key} is {named.get(key)!r}, the artifact's is {held.get(key)!r}"
        for key in sorted(named.keys() | held.keys())
        if key not in _NOT_COMPARED and named.get(key) != held.get(key)
    ]
    if differences:
        more = len(differences) - _NUM_LISTED
        differences[_NUM_LISTED:] = [f"and {more} more"] if more > 0 else []
        raise UsageError(
            f"--config_name {path} is not the config that {local.artifact.url} was compiled from: "
            f"{'; '.join(differences)}; leave --config_name out, or compile this one"
        )


def _check_tokenizer(local: LocalArtifact, path: Path) -> None:
    from transformers import AutoTokenizer

    held: Any = AutoTokenizer.from_pretrained(str(local.folder), local_files_only=True)
    try:
        if path.is_file():
            named: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
        else:
            named = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:
        # Whatever transformers raises here, there is no tokenizer that it reads.
        raise InputError(
            f"--model_name_or_path {path}: no tokenizer that transformers reads: "
            f"{type(error).__name__}: {error}"
        ) from error
    if named.get_vocab() != held.get_vocab():
        raise UsageError(
            f"--model_name_or_path {path}: its tokenizer is not that of {local.artifact.url}; "
            "leave it out, or compile the model with this tokenizer (--tokenizer)"
        )
