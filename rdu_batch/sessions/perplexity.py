"""Perplexity over a real text that lies on every machine: the documentation strings of Python.

Promises: the text is read from the standard library's source files, never imported; modules, order
and windows are fixed, so the same Python, tokenizer and limits give the same tokens. A session is
measured through its door: each window's beginning goes through prefill, the rest through decode,
one token after the other. Does not: say what a good perplexity is; it compares two.

Shapes: S tokens of a window, V vocabulary.
"""

from __future__ import annotations

import ast
import math
import sysconfig
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from rdu_batch.job.prompt import Prompt
from rdu_batch.sessions.artifact import LocalArtifact
from rdu_batch.sessions.artifact_store import folder_entries
from rdu_batch.sessions.tokenizer import open_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rdu_batch.sessions.artifact import Artifact
    from rdu_batch.sessions.door import Session
    from rdu_batch.sessions.tokenizer import PromptTokenizer

#: Tokens that are scored, in all windows together.
NUM_TOKENS: Final = 1024
#: Tokens of a window, where the limits allow it, and the share of them that only give context.
_WINDOW_TOKENS: Final = 192
_CONTEXT_SHARE: Final = 3
#: Much prose, and the same in every Python this program runs on.
_MODULES: Final = (
    *("textwrap", "argparse", "random", "statistics", "shutil", "tempfile", "heapq", "bisect"),
    *("csv", "fractions", "string", "difflib", "calendar", "functools", "contextlib", "optparse"),
    *("socketserver", "sched", "threading"),
)
#: What differs more than this share is said to.
_NOTABLE: Final = 0.01


@dataclass(frozen=True)
class Window:
    """A run of the text's tokens; those behind the first ``num_context`` are scored."""

    ids: tuple[int, ...]
    num_context: int


def documentation() -> str:
    """The documentation strings; empty where Python came without source files."""
    folder = Path(sysconfig.get_path("stdlib"))
    paths = [folder / f"{name}.py" for name in _MODULES]
    return "\n\n".join(text for path in paths if path.is_file() for text in _strings_of(path))


def _strings_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield text


def documentation_windows(tokenizer: PromptTokenizer, artifact: Artifact) -> list[Window]:
    """Windows that fit the artifact, spread evenly over the text: ``NUM_TOKENS`` scored tokens.

    Fewer, or none, where there is not enough text.
    """
    ids = tokenizer.encode(Prompt(text=documentation(), messages=None), date=None)
    # A tokenizer may know tokens that the model does not.
    ids = [token_id for token_id in ids if token_id < artifact.vocab_size]
    size = min(_WINDOW_TOKENS, artifact.max_seq_length)
    num_context = max(1, size // _CONTEXT_SHARE)
    num_windows = min(-(-NUM_TOKENS // (size - num_context)), len(ids) // size)
    windows = []
    left = NUM_TOKENS
    for index in range(num_windows):
        start = index * (len(ids) // num_windows)
        end = start + min(size, num_context + left)
        windows.append(Window(tuple(ids[start:end]), num_context))
        left -= end - start - num_context
    return windows


def num_scored(windows: Sequence[Window]) -> int:
    """Tokens that the windows score."""
    return sum(len(window.ids) - window.num_context for window in windows)


def session_perplexity(session: Session, windows: Sequence[Window]) -> float:
    """Of a session, one decode step a scored token.

    Raises:
        SessionBroken: the session failed, or its logits are not finite.
    """
    total = 0.0
    for window in windows:
        step = session.prefill(window.ids[: window.num_context], want_logits=True)
        for position in range(window.num_context, len(window.ids)):
            if step.logits_1V is None:
                raise ValueError("the session gave no logits although asked for them")
            total += _surprise(step.logits_1V, window.ids[position : position + 1])
            if position + 1 < len(window.ids):
                step = session.decode(window.ids[position], position, want_logits=True)
    return math.exp(total / num_scored(windows))


def model_perplexity(model: Any, windows: Sequence[Window]) -> float:
    """Of a plain transformers model, in its own type, one call a window."""
    total = 0.0
    for window in windows:
        with torch.inference_mode():
            logits_SV = model(input_ids=torch.tensor([window.ids]), use_cache=False).logits[0]
        scored_SV = logits_SV[window.num_context - 1 : -1].float()
        total += _surprise(scored_SV, window.ids[window.num_context :])
    return math.exp(total / num_scored(windows))


def _surprise(logits_SV: torch.Tensor, ids: Sequence[int]) -> float:
    """Sum over tokens of -log(probability), in nats."""
    return float(
        torch.nn.functional.cross_entropy(logits_SV, torch.tensor(list(ids)), reduction="sum")
    )


@dataclass(frozen=True)
class QualityProbe:
    """What the plain weights reached, kept until there are graphs to hold against it."""

    windows: Sequence[Window]
    plain_perplexity: float

    @classmethod
    def of(cls, folder: Path, plan: Artifact, model: Any) -> QualityProbe:
        """Measure the plain model.

        Args:
            folder: of the half-made artifact, with its tokenizer.
            plan: the artifact as it will be.
            model: plain transformers, in fp32.

        Raises:
            ArtifactError: the tokenizer cannot be loaded.
        """
        half_made = replace(plan, files=folder_entries(folder), url=str(folder))
        tokenizer = open_tokenizer(plan.kind, LocalArtifact(folder, half_made))
        windows = documentation_windows(tokenizer, plan)
        return cls(windows, model_perplexity(model, windows) if windows else math.nan)

    def compare(self, local: LocalArtifact) -> tuple[dict[str, float], str]:
        """``Artifact.quality`` of the compiled model, and the line to report.

        Raises:
            SessionBroken: the session failed, or its logits are not finite.
        """
        from rdu_batch.sessions.inductor.session import InductorSession

        if not self.windows:
            return {}, "perplexity: not measured, Python's standard library has no sources here"
        threads = torch.get_num_threads()
        session = InductorSession.open(local, threads=threads)
        found = session_perplexity(session, self.windows)
        session.close()
        num_tokens = num_scored(self.windows)
        quality = {
            "perplexity": round(found, 4),
            "plain_perplexity": round(self.plain_perplexity, 4),
            "num_tokens": num_tokens,
        }
        change = found / self.plain_perplexity - 1
        warning = f", more than {_NOTABLE:.0%}: compare answers before you use it"
        return quality, (
            f"perplexity: {found:.2f} with {local.artifact.weights}, {self.plain_perplexity:.2f} "
            f"plain ({change:+.2%}{warning if change > _NOTABLE else ''}), {num_tokens:,} tokens "
            "of Python's documentation"
        )
