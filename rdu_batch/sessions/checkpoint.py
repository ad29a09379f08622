"""Where weights, config and tokenizer of a model come from.

Holds: what the command line can say about a model, and where that lies on this machine. Promises:
two checkpoints with the same bytes have the same digests, wherever they lie. Does not: read what is
inside; see ``plain_model.py``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from rdu_batch.errors import InputError, UsageError

_TOKENIZER_PATTERNS = ("tokenizer*", "*.model", "vocab.*", "merges.txt", "special_tokens_map.json")
_TOKENIZER_FILES = (*_TOKENIZER_PATTERNS, "added_tokens.json", "*.jinja")
_GENERATION_CONFIG = "generation_config.json"


@dataclass(frozen=True)
class ModelSource:
    """What the command line says about the model; each place may be a path or a hub id."""

    #: A transformers folder, a hub id or a .gguf file.
    model_name_or_path: str | None = None
    #: A config.json, a folder or a hub id; goes before the model's own config.
    config_name: str | None = None
    #: A file of weights by name: .safetensors, or whatever torch.save wrote.
    checkpoint_name: str | None = None
    #: A folder, hub id or .gguf file; goes before the model's own tokenizer.
    tokenizer: str | None = None
    #: Where downloads are kept; the hub's default if None.
    cache_dir: str | None = None
    #: Take no weights from anywhere: graphs alone are compiled, of ``config_name``.
    without_weights: bool = False


@dataclass(frozen=True)
class Checkpoint:
    """A source with every place found on this machine."""

    #: A folder, a config.json or a .gguf file.
    config_path: Path
    #: A folder, a .gguf file or a file of weights by name; None: there are none.
    weights_path: Path | None
    #: A folder or a .gguf file.
    tokenizer_path: Path
    #: The one generation_config.json that counts; None: what the config itself says.
    generation_config_path: Path | None = None

    def model_digest(self) -> str:
        """sha256 over the bytes of config, generation config and weights."""
        generation = self.generation_config_path
        return _digest(
            _files(self.config_path, ("config.json",)),
            [] if generation is None else [generation],
            [] if self.weights_path is None else _weight_files(self.weights_path),
        )

    def tokenizer_digest(self) -> str:
        """sha256 over the bytes of the tokenizer's files."""
        return _digest(_files(self.tokenizer_path, _TOKENIZER_FILES))


def find_checkpoint(source: ModelSource) -> Checkpoint:
    """Find every place of a source, downloading from the hub what is not a path.

    Raises:
        UsageError: the source names no weights, config or tokenizer. Ends the command (exit 2).
        InputError: a place does not exist. Ends the command (exit 4).
    """
    model, config = source.model_name_or_path, source.config_name
    weights = None if source.without_weights else source.checkpoint_name or model
    if weights is None and not source.without_weights:
        raise UsageError(
            "no weights: name a MODEL (a folder, a hub id or a .gguf file), or --config_name FILE "
            "with --checkpoint_name FILE; a model with random weights is never compiled"
        )
    if config is None and (model is None or source.without_weights):
        wanted = "" if source.without_weights else " or a MODEL"
        raise UsageError(f"no config: it takes --config_name FILE{wanted}")
    tokenizer = source.tokenizer or model
    if tokenizer is None:
        raise UsageError(
            "no tokenizer: neither a config nor a checkpoint holds one; "
            "add --tokenizer or --model_name_or_path (a folder, a hub id or a .gguf file)"
        )
    if source.checkpoint_name is not None:
        checkpoint_file(source.checkpoint_name)
    config_path = _find(config or str(model), source.cache_dir, weights=False)
    weights_path = None if weights is None else _find(weights, source.cache_dir, weights=True)
    # A file of weights by name says nothing about generation, nor does the folder it lies in.
    places = [config_path]
    if weights_path is not None and source.checkpoint_name is None:
        places.append(weights_path)
    beside = [(place if place.is_dir() else place.parent) / _GENERATION_CONFIG for place in places]
    return Checkpoint(
        config_path=config_path,
        weights_path=weights_path,
        tokenizer_path=_find(tokenizer, source.cache_dir, weights=False),
        generation_config_path=next((path for path in beside if path.is_file()), None),
    )


def checkpoint_file(name: str) -> Path:
    """The file of weights by name that ``--checkpoint_name`` means.

    Raises:
        InputError: there is none, or it is a folder. Ends the command (exit 4).
    """
    path = Path(name).expanduser()
    if path.is_dir():
        raise InputError(
            f"--checkpoint_name {name}: this is a folder; name the file of weights in it, such as "
            "model.safetensors or one that torch saved"
        )
    if not path.is_file():
        raise InputError(f"--checkpoint_name {name}: there is no such file")
    return path


def is_path(place: str) -> bool:
    """Whether a place can only be one on this machine, and no name such as ``org/model``."""
    return (
        place.startswith((".", "/", "~"))
        or place.endswith(("/", ".json", ".gguf"))
        or place.count("/") > 1
    )


def is_gguf(path: Path) -> bool:
    """Whether a path names a GGUF file."""
    return path.suffix == ".gguf"


def _find(place: str, cache_dir: str | None, *, weights: bool) -> Path:
    """A path as it is; anything else as a hub id, downloaded."""
    path = Path(place).expanduser()
    if path.exists():
        return path.absolute()
    if is_path(place):
        wanted_place = "folder" if place.endswith("/") else "file or folder"
        raise InputError(f"{place}: there is no such {wanted_place}")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    wanted = ["*.json", "*.txt", "*.model", "*.jinja"]
    try:
        folder = Path(
            snapshot_download(
                place, cache_dir=cache_dir, allow_patterns=[*wanted, *["*.safetensors"][:weights]]
            )
        )
        if weights and not list(folder.glob("*.safetensors")):
            snapshot_download(place, cache_dir=cache_dir, allow_patterns=["*.bin"])
    except (OSError, ValueError, HFValidationError, HfHubHTTPError) as error:
        raise InputError(
            f"{place}: neither a path here nor a model that the hub gives: {error}"
        ) from error
    return folder


def _files(path: Path, patterns: tuple[str, ...]) -> list[Path]:
    if path.is_file():
        return [path]
    found = {found for pattern in patterns for found in path.glob(pattern)}
    return sorted(path for path in found if path.is_file())


def _weight_files(path: Path) -> list[Path]:
    return _files(path, ("*.safetensors",)) or _files(path, ("*.bin",))


def _digest(*groups: list[Path]) -> str:
    """sha256 over each group's names and bytes; a single file of a group counts without its name.

    So a file has the same digest under any name, and a folder's files cannot change places.
    """
    total = hashlib.sha256()
    for paths in groups:
        entries = []
        for path in paths:
            with path.open("rb") as stream:
                sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            entries.append([path.name if len(paths) > 1 else "", sha256])
        total.update(json.dumps(entries).encode())
    return "sha256:" + total.hexdigest()
