"""The artifact: a compiled model as a folder on any fsspec URL. No torch in here.

Holds: the values of ``artifact.json``, and its JSON form. Promises: an artifact has one digest
everywhere: sha256 over the bytes of its ``artifact.json``. Does not: read or write folders
(``artifact_store.py``), compile (``compile.py``) or load (``registry.py``).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import ArtifactError

if TYPE_CHECKING:
    from collections.abc import Mapping

ARTIFACT_FILE = "artifact.json"
FORMAT_VERSION = 3
DTYPES = ("bf16", "fp32")
#: ``plain``: in the artifact's dtype. ``int8``: those of products as int8, the rest plain.
WEIGHTS = ("plain", "int8")
DEVICES = ("cpu", "cuda")
#: Key of the sha256 over everything else in the file; the last one.
_SEAL = "sha256"


@dataclass(frozen=True)
class ArtifactFile:
    """One file of the folder, as it was when it was written."""

    size_bytes: int
    #: 64 hex digits.
    sha256: str


@dataclass(frozen=True)
class Target:
    """The machine the compiled graphs run on; empty strings where a kind compiles nothing."""

    #: One of ``DEVICES``; ``rdu`` of kind samba.
    device: str = "cpu"
    #: As ``platform.machine()`` says: ``x86_64``, ``aarch64``.
    machine: str = ""
    #: Name of the pinned instruction set: ``avx2``, ``avx512``.
    instruction_set: str = ""
    #: Processor flags (as in /proc/cpuinfo) without which the graphs must not be loaded.
    cpu_flags: tuple[str, ...] = ()
    torch_version: str = ""
    transformers_version: str = ""
    #: Architecture of the GPU that the graphs are for (``sm_90``); empty on cpu, and then not in
    #: the file either.
    gpu_arch: str = ""


@dataclass(frozen=True)
class Artifact:
    """What ``artifact.json`` says.

    ``digest`` and ``url`` are not in the file: the first is taken over its bytes, the second is
    where it was read.
    """

    kind: str
    dtype: str
    #: Positions of the key/value cache that a row may use.
    max_seq_length: int
    #: Tokens of one prefill call; 1 where there are no chunks.
    prefill_chunk: int
    #: Positions the cache tensors hold: whole chunks, at least max_seq_length + 1.
    cache_length: int
    #: Layers, key/value heads and head size of the cache tensors; 0 where a kind has none.
    num_layers: int
    num_kv_heads: int
    head_size: int
    vocab_size: int
    #: Threads the graphs are fixed to; None: any number, chosen when a session opens.
    threads: int | None
    #: transformers' ``model_type``.
    model_family: str
    #: sha256 over config and weights as they came: "sha256:...".
    model_digest: str
    #: sha256 over everything that decides the compiled files: "sha256:...".
    settings_digest: str
    target: Target
    files: Mapping[str, ArtifactFile]
    #: False: compiled from a config alone; its graphs are whole, and ``weight_binding.py`` brings
    #: the weights. Only then it is in the file.
    has_weights: bool = True
    #: How each changed tensor of weights.safetensors lies: name -> "transposed", "int8" (its scales
    #: lie under NAME_scale), "int8,transposed" or "alias:NAME".
    layouts: Mapping[str, str] = field(default_factory=dict)
    #: One of ``WEIGHTS``.
    weights: str = "plain"
    #: What the weights' type costs: ``perplexity``, ``plain_perplexity`` and ``num_tokens`` scored;
    #: empty where nothing was measured.
    quality: Mapping[str, float] = field(default_factory=dict)
    #: Names of patches that the graphs were compiled without; a benchmark's doing.
    without: tuple[str, ...] = ()
    digest: str = ""
    url: str = ""

    def to_bytes(self) -> bytes:
        """The bytes of ``artifact.json``: canonical, and free of times, hosts and paths."""
        document = {
            "version": FORMAT_VERSION,
            "kind": self.kind,
            "model": {
                "family": self.model_family,
                "digest": self.model_digest,
                **({} if self.has_weights else {"has_weights": False}),
            },
            "settings_digest": self.settings_digest,
            "target": {
                "device": self.target.device,
                "machine": self.target.machine,
                "instruction_set": self.target.instruction_set,
                "cpu_flags": sorted(self.target.cpu_flags),
                "torch_version": self.target.torch_version,
                "transformers_version": self.target.transformers_version,
                **({"gpu_arch": self.target.gpu_arch} if self.target.gpu_arch else {}),
            },
            "geometry": {
                "dtype": self.dtype,
                "weights": self.weights,
                "max_seq_length": self.max_seq_length,
                "prefill_chunk": self.prefill_chunk,
                "cache_length": self.cache_length,
                "num_layers": self.num_layers,
                "num_kv_heads": self.num_kv_heads,
                "head_size": self.head_size,
                "vocab_size": self.vocab_size,
                "threads": self.threads,
            },
            "without": list(self.without),
            "quality": dict(sorted(self.quality.items())),
            "layouts": dict(sorted(self.layouts.items())),
            "files": {
                name: {"size_bytes": entry.size_bytes, "sha256": entry.sha256}
                for name, entry in sorted(self.files.items())
            },
        }
        return sealed(document)

    @classmethod
    def from_bytes(cls, content: bytes, *, url: str) -> Artifact:
        """Read ``artifact.json``; ``url`` is the folder's, for messages.

        Raises:
            ArtifactError: not JSON, an unknown version, changed since it was written, or a field
                that is missing or wrong.
        """
        place = f"{url.rstrip('/')}/{ARTIFACT_FILE}"
        try:
            document = json.loads(content)
            version = document["version"]
        except (ValueError, TypeError, KeyError) as error:
            raise ArtifactError(
                f"{place}: not an artifact description ({error!r}); delete it and compile the "
                "model again"
            ) from error
        if version != FORMAT_VERSION:
            raise ArtifactError(
                f"{place}: format version {version!r}, this program reads {FORMAT_VERSION}; "
                "delete it and compile the model again with this version, or run with the version "
                "that made it"
            )
        if sealed({key: document[key] for key in document if key != _SEAL}) != content:
            # One changed number would make the graphs read and write beside their memory.
            raise ArtifactError(
                f"{place}: its bytes are not those that were written: the file is damaged, or was "
                "edited; delete it and compile the model again"
            )
        try:
            return _artifact_of(document, digest=_digest_of(content), url=url)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise ArtifactError(
                f"{place}: damaged, {error!r}; delete it and compile the model again"
            ) from error


def sealed(document: dict[str, Any]) -> bytes:
    """The bytes of an ``artifact.json``: a document with the sha256 of all the rest in it."""
    rest = json.dumps(document, indent=1)
    seal = hashlib.sha256(rest.encode()).hexdigest()
    return json.dumps({**document, _SEAL: seal}, indent=1).encode() + b"\n"


@dataclass(frozen=True)
class LocalArtifact:
    """An artifact whose files lie on this node, checked byte by byte."""

    folder: Path
    artifact: Artifact

    def path(self, name: str) -> Path:
        """Local path of one file of the artifact.

        Raises:
            ArtifactError: the artifact does not list this file.
        """
        if name not in self.artifact.files:
            raise ArtifactError(
                f"{self.artifact.url}: a {self.artifact.kind} artifact without {name}; "
                "compile the model again"
            )
        return self.folder / name


def _artifact_of(document: Mapping[str, Any], *, digest: str, url: str) -> Artifact:
    target, geometry = document["target"], document["geometry"]
    if geometry["dtype"] not in DTYPES:
        raise ValueError(f"dtype {geometry['dtype']!r} is none of {DTYPES}")
    if geometry["weights"] not in WEIGHTS:
        raise ValueError(f"weights {geometry['weights']!r} are none of {WEIGHTS}")
    files = {}
    for name, entry in document["files"].items():
        parts = PurePosixPath(name).parts
        if not parts or name.startswith("/") or ".." in parts or "\\" in name:
            raise ValueError(f"file name {name!r} leaves the folder")
        files[name] = ArtifactFile(int(entry["size_bytes"]), str(entry["sha256"]))
    threads = geometry["threads"]
    return Artifact(
        kind=str(document["kind"]),
        dtype=str(geometry["dtype"]),
        max_seq_length=int(geometry["max_seq_length"]),
        prefill_chunk=int(geometry["prefill_chunk"]),
        cache_length=int(geometry["cache_length"]),
        num_layers=int(geometry["num_layers"]),
        num_kv_heads=int(geometry["num_kv_heads"]),
        head_size=int(geometry["head_size"]),
        vocab_size=int(geometry["vocab_size"]),
        threads=None if threads is None else int(threads),
        without=tuple(document["without"]),
        model_family=str(document["model"]["family"]),
        model_digest=str(document["model"]["digest"]),
        settings_digest=str(document["settings_digest"]),
        target=Target(
            device=str(target["device"]),
            machine=str(target["machine"]),
            instruction_set=str(target["instruction_set"]),
            cpu_flags=tuple(target["cpu_flags"]),
            torch_version=str(target["torch_version"]),
            transformers_version=str(target["transformers_version"]),
            gpu_arch=str(target.get("gpu_arch", "")),
        ),
        files=files,
        has_weights=document["model"].get("has_weights", True) is not False,
        layouts={str(name): str(layout) for name, layout in document["layouts"].items()},
        weights=str(geometry["weights"]),
        quality={str(name): _number(value) for name, value in document["quality"].items()},
        digest=digest,
        url=url,
    )


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


def _digest_of(content: bytes) -> str:
    return "sha256:" + hashlib.sha256(content).hexdigest()
