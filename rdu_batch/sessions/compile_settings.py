"""What a person decides about an artifact, besides the model: the settings of ``compile``.

Promises: settings that exist are possible ones. Does not: know models; see ``compile.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rdu_batch.errors import UsageError
from rdu_batch.sessions.artifact import DEVICES, DTYPES, WEIGHTS

KINDS: Final = ("inductor", "samba", "eager")
#: Kind samba: one static graph over all positions, or several that share a key/value cache.
GRAPHS: Final = ("single", "cached")
GELUS: Final = ("config", "erf")
DEFAULT_PREFILL_CHUNK: Final = 256
#: Shortest of the static prefill lengths that are taken if none are named.
SHORTEST_PREFILL: Final = 64


@dataclass(frozen=True)
class CompileSettings:
    """How to compile; all of it decides the artifact.

    Raises:
        UsageError: a setting that cannot be. Ends the command (exit 2).
    """

    #: ``bf16`` or ``fp32``: type of the weights that are not int8, and of the key/value cache.
    dtype: str
    #: Prompt and generated tokens together; at most the model's positions.
    max_seq_length: int
    #: ``inductor``, ``samba``, or ``eager`` for an artifact without graphs.
    kind: str = "inductor"
    #: Tokens of one full prefill call.
    prefill_chunk: int = DEFAULT_PREFILL_CHUNK
    #: ``avx512`` or ``avx2``; the best of this machine if None.
    instruction_set: str | None = None
    #: ``plain``: as ``dtype`` says; ``int8``: those that decode reads whole are int8.
    weights: str = "plain"
    #: Names of patches to leave out (``inductor/patches.py``), to measure what they buy.
    without: tuple[str, ...] = ()
    #: ``cpu``, or ``cuda`` for the GPU of the machine that compiles.
    device: str = "cpu"
    #: Kind samba: False keeps the backward sections in the PEF, as training needs them.
    inference: bool = True
    #: Kind samba: further words of SambaFlow's own command line, such as ``--arch sn20``.
    samba_flags: tuple[str, ...] = ()
    #: Kind samba: ``single`` computes all positions for each token; ``cached`` keeps keys and
    #: values on the device: a prefill graph for each of ``prefill_lengths``, and one for decode.
    graphs: str = "single"
    #: ``cached``: static lengths of prefill, the longest is ``max_seq_length``; if empty, powers
    #: of two up to it.
    prefill_lengths: tuple[int, ...] = ()
    #: One of ``GELUS``: the model's activation as its config says, or the exact GELU, by erf, for
    #: one that approximates it by tanh, as the patch of kind samba has it.
    gelu: str = "config"

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"kind {self.kind!r}: compile makes {' or '.join(KINDS)}")
        if self.dtype not in DTYPES:
            raise UsageError(f"dtype {self.dtype!r}: wanted {' or '.join(DTYPES)}")
        if self.weights not in WEIGHTS:
            raise UsageError(f"weights {self.weights!r}: wanted {' or '.join(WEIGHTS)}")
        if self.weights != "plain" and self.kind != "inductor":
            raise UsageError(
                f"weights {self.weights} of kind {self.kind}: only kind inductor has them; an "
                f"eager session opens such an artifact too"
            )
        if self.kind != "samba" and (self.samba_flags or not self.inference):
            raise UsageError(
                f"kind {self.kind}: its graphs are always for inference, and it takes no flags of "
                "SambaFlow; use --kind samba for these"
            )
        if self.gelu not in GELUS:
            raise UsageError(f"gelu {self.gelu!r}: wanted {' or '.join(GELUS)}")
        self._check_graphs()
        self._check_device()
        for name in ("max_seq_length", "prefill_chunk"):
            if getattr(self, name) < 2:
                raise UsageError(f"{name} is {getattr(self, name)}, wanted 2 or more")

    def _check_graphs(self) -> None:
        if self.graphs not in GRAPHS:
            raise UsageError(f"graphs {self.graphs!r}: wanted {' or '.join(GRAPHS)}")
        if self.graphs == "single":
            if self.prefill_lengths:
                raise UsageError(
                    f"prefill_lengths {_joined(self.prefill_lengths)}: a single graph has one "
                    "length, max_seq_length; use --kind samba --graphs cached for these"
                )
            return
        if self.kind != "samba":
            raise UsageError(
                f"graphs {self.graphs} of kind {self.kind}: only kind samba has a choice; leave "
                "--graphs out"
            )
        if not self.inference:
            raise UsageError(
                f"graphs {self.graphs} without --inference: SambaFlow compiles several graphs for "
                "inference alone; use --graphs single for a PEF that also trains"
            )
        lengths = self.prefill_lengths
        if lengths and (min(lengths) < 1 or max(lengths) != self.max_seq_length):
            raise UsageError(
                f"prefill_lengths {_joined(lengths)}: wanted numbers of tokens, of which the "
                f"longest is max_seq_length, {self.max_seq_length}"
            )
        if len(set(lengths)) != len(lengths):
            raise UsageError(f"prefill_lengths {_joined(lengths)}: one is there twice")

    def _check_device(self) -> None:
        if self.device not in DEVICES:
            raise UsageError(f"device {self.device!r}: wanted {' or '.join(DEVICES)}")
        if self.device == "cpu":
            return
        if self.kind != "inductor":
            raise UsageError(
                f"device {self.device} of kind {self.kind}: only kind inductor runs there; leave "
                "--device out"
            )
        if self.weights != "plain":
            raise UsageError(
                f"weights {self.weights} with device {self.device}: the {self.weights} products "
                "are code for processors; use --weights plain, or --device cpu"
            )

    @property
    def chunk(self) -> int:
        """Tokens of one full prefill call, as the artifact has it; 1 where nothing is compiled."""
        if self.kind != "inductor":
            return 1
        return min(self.prefill_chunk, self.max_seq_length)

    @property
    def static_lengths(self) -> tuple[int, ...]:
        """Lengths of the prefill graphs, ascending; none of what has no such graphs."""
        if self.graphs == "single":
            return ()
        if self.prefill_lengths:
            return tuple(sorted(self.prefill_lengths))
        lengths = []
        length = SHORTEST_PREFILL
        while length < self.max_seq_length:
            lengths.append(length)
            length *= 2
        return (*lengths, self.max_seq_length)


def _joined(lengths: tuple[int, ...]) -> str:
    return ",".join(map(str, lengths))
