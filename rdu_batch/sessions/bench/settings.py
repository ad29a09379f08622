"""What a person decides about a bench, and whether the artifact can do it. No torch in here."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rdu_batch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection

    from rdu_batch.sessions.artifact import Artifact

#: One token comes from the prefill, one decode does not count, one is timed.
LEAST_NEW_TOKENS = 3
DEFAULT_ROUNDS = 16
#: Where nothing is asked for; an artifact of fewer positions is measured with fewer.
DEFAULT_PROMPT_TOKENS, DEFAULT_NEW_TOKENS = 128, 64


@dataclass(frozen=True)
class BenchSettings:
    """What to measure, and how often.

    Raises:
        UsageError: a setting that cannot be. Ends the command (exit 2).
    """

    artifact_url: str
    #: Intra-op threads of each session.
    threads: int
    #: Tokens of the prompt: what is prefilled.
    prompt_tokens: int = DEFAULT_PROMPT_TOKENS
    #: Tokens generated behind it: the first by the prefill, the rest by decodes.
    new_tokens: int = DEFAULT_NEW_TOKENS
    #: Also measure ``transformers.generate`` on the same weights.
    against_eager: bool = False
    #: Processes side by side, each with a session; None: do not measure that.
    sessions: int | None = None
    #: Patches to leave out of a second artifact that is measured beside this one.
    without: tuple[str, ...] = ()
    #: Folder where what ``without`` compiles is kept for the next time; None: nowhere.
    keep: str | None = None
    #: Rounds of each measurement.
    rounds: int = DEFAULT_ROUNDS

    def __post_init__(self) -> None:
        wanted = {
            "--threads": (self.threads, 1),
            "--prompt-tokens": (self.prompt_tokens, 1),
            "--new-tokens": (self.new_tokens, LEAST_NEW_TOKENS),
            "--rounds": (self.rounds, 1),
            "--sessions": (1 if self.sessions is None else self.sessions, 1),
        }
        for option, (found, least) in wanted.items():
            if found < least:
                raise UsageError(f"{option} is {found}, wanted {least} or more")
        if self.keep is not None and not self.without:
            raise UsageError("--keep keeps what --without compiles; name a patch with --without")

    def check_artifact(self, artifact: Artifact) -> None:
        """Whether this can be measured on this artifact.

        Raises:
            UsageError: it cannot, and why. Ends the command (exit 2).
        """
        if artifact.kind != "inductor":
            raise UsageError(
                f"{artifact.url}: an artifact of kind {artifact.kind}, bench measures kind "
                "inductor; compile the model with --kind inductor, and compare with --against eager"
            )
        if artifact.target.device != "cpu" and (self.without or self.sessions):
            raise UsageError(
                f"{artifact.url}: compiled for {artifact.target.device}; --without and --sessions "
                "measure artifacts of device cpu"
            )
        if artifact.threads not in (None, self.threads):
            raise UsageError(
                f"{artifact.url}: compiled for {artifact.threads} threads, asked for "
                f"{self.threads}; use --threads {artifact.threads}"
            )
        wanted, limit = self.prompt_tokens + self.new_tokens, artifact.max_seq_length
        if wanted > limit:
            raise UsageError(
                f"--prompt-tokens {self.prompt_tokens} and --new-tokens {self.new_tokens} are "
                f"{wanted} together, but {artifact.url} was compiled with max_seq_length {limit}; "
                f"use {limit} or less together"
            )

    def fitted(self, artifact: Artifact) -> BenchSettings:
        """These settings, with the default lengths cut to what a short artifact has room for."""
        lengths = (self.prompt_tokens, self.new_tokens)
        limit = artifact.max_seq_length
        if lengths != (DEFAULT_PROMPT_TOKENS, DEFAULT_NEW_TOKENS) or sum(lengths) <= limit:
            return self
        new_tokens = max(LEAST_NEW_TOKENS, limit // 3)
        return replace(self, prompt_tokens=max(1, limit - new_tokens), new_tokens=new_tokens)

    def check_patches(self, known: Collection[str]) -> None:
        """Whether every patch to leave out is one there is.

        Raises:
            UsageError: names those there are. Ends the command (exit 2).
        """
        for name in self.without:
            if name not in known:
                raise UsageError(
                    f"--without {name}: there is no such patch; wanted one of {', '.join(known)}"
                )


def prompt_ids(num_tokens: int, vocab_size: int) -> list[int]:
    """A prompt of mixed ids: the same for every session of a vocabulary."""
    return [(index * 7919 + 13) % vocab_size for index in range(num_tokens)]
