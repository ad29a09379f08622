"""The eager session: plain transformers, nothing compiled; the oracle, and a way to debug.

Promises: opens any artifact, whatever kind it was compiled for, by undoing the noted layouts of its
tensors; runs transformers' own model unpatched. Does not: hurry, or share weights with others.

Shapes: S prompt length, V vocabulary.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rdu_batch.errors import SessionBroken
from rdu_batch.sessions.cache_argument import cache_argument
from rdu_batch.sessions.door import SessionInfo, Step, check_logit

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rdu_batch.sessions.artifact import LocalArtifact


class EagerSession:
    """A plain transformers model with a growing cache; see ``door.Session``."""

    def __init__(self, info: SessionInfo, model: Any) -> None:
        self._info = info
        self._model = model
        self._cache_argument = cache_argument(model)
        self._cache: Any = None
        self._next_position: int | None = None

    @classmethod
    def open(cls, local: LocalArtifact, *, threads: int) -> EagerSession:
        """Build the model from the artifact's config and weights; sets intra-op threads.

        Raises:
            ArtifactError: the artifact holds no weights.
            InputError: they do not fit its config.
        """
        return cls._open(local, local.artifact.dtype, threads)

    @classmethod
    def open_fp32(cls, local: LocalArtifact, *, threads: int) -> EagerSession:
        """The same weights, computed in fp32 whatever their type: the reference for rounding."""
        return cls._open(local, "fp32", threads)

    @classmethod
    def _open(cls, local: LocalArtifact, dtype: str, threads: int) -> EagerSession:
        import torch

        from rdu_batch.sessions.inductor.geometry import TORCH_DTYPES, WEIGHTS_FILE
        from rdu_batch.sessions.inductor.weights import map_tensors, original_tensors
        from rdu_batch.sessions.plain_model import build_model, read_config

        artifact = local.artifact
        torch.set_num_threads(threads)
        tensors = map_tensors(local.path(WEIGHTS_FILE))
        weights = original_tensors(tensors, artifact.layouts, TORCH_DTYPES[dtype])
        model = build_model(
            read_config(local.folder), weights, TORCH_DTYPES[dtype], place=artifact.url
        )
        info = SessionInfo(
            kind="eager",
            max_seq_length=artifact.max_seq_length,
            prefill_chunk=1,
            vocab_size=artifact.vocab_size,
            dtype=dtype,
            threads=threads,
        )
        return cls(info, model.requires_grad_(False))

    @property
    def info(self) -> SessionInfo:
        """Limits, dtype and vocabulary."""
        return self._info

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        """Start a row; see ``door.Session.prefill``."""
        self._check_open()
        ids = self._info.check_prompt(input_ids_1S)
        self.reset()
        return self._forward(ids, want_logits)

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        """Feed one token; see ``door.Session.decode``."""
        self._check_open()
        self._info.check_decode(token_id, position, self._next_position)
        return self._forward([int(token_id)], want_logits)

    def reset(self) -> None:
        """Forget the current row."""
        self._cache = None
        self._next_position = None

    def close(self) -> None:
        """Drop the model."""
        self.reset()
        self._model = None

    def _forward(self, ids: list[int], want_logits: bool) -> Step:
        import torch
        from transformers import DynamicCache

        start = self._next_position or 0
        if self._cache is None:
            self._cache = DynamicCache(config=self._model.config)
        try:
            with torch.inference_mode():
                output = self._model(
                    input_ids=torch.tensor([ids]),
                    position_ids=torch.arange(start, start + len(ids))[None],
                    use_cache=True,
                    logits_to_keep=1,
                    **{self._cache_argument: self._cache},
                )
                logits_1V = output.logits[:, -1].float()
        except RuntimeError as error:
            self.reset()
            raise SessionBroken(f"the model failed: {error}") from error
        token_id = int(logits_1V.argmax(-1))
        check_logit(float(logits_1V[0, token_id]))
        self._next_position = start + len(ids)
        return Step(token_id, logits_1V.clone() if want_logits else None)

    def _check_open(self) -> None:
        if self._model is None:
            raise ValueError("the session is closed")
