"""A session without a model: deterministic, instant, over bytes. For dry runs and tests.

Vocabulary: the 256 bytes and ``EOS_TOKEN_ID``. The next token is a function of all tokens before
it: the session spells words, ends sentences, and after some sentence ends the text. It keeps every
promise of ``door.py``, and needs torch only when logits are asked for.

A row can tell it to misbehave by a directive anywhere in its prompt. Directives act when the prompt
is fed, in the order they stand; what is not one of these is plain text:

    [[fake:crash]]            the process dies of SIGSEGV
    [[fake:exit 3]]           the process ends at once with this exit code
    [[fake:hang]]             the call never returns
    [[fake:eat-memory]]       the process eats memory until something stops it
    [[fake:eat-memory 256]]   it holds 256 MiB more until the row is forgotten
    [[fake:sleep 0.2]]        the call takes 0.2 s longer
    [[fake:broken]]           the call raises SessionBroken
"""

from __future__ import annotations

import hashlib
import os
import re
import resource
import signal
import struct
import time
from typing import TYPE_CHECKING, Final

from rdu_batch.errors import SessionBroken
from rdu_batch.sessions.door import SessionInfo, Step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from rdu_batch.sessions.artifact import LocalArtifact

EOS_TOKEN_ID: Final = 256
VOCAB_SIZE: Final = 257
DEFAULT_MAX_SEQ_LENGTH: Final = 512

_WORDS: Final = tuple(
    b"""amber anchor apple autumn basket bridge bright button candle canvas carpet cedar chapter
    circle clear cloud copper corner cotton crystal distant early eleven ember every evening feather
    fiddle field forest garden gentle glass golden granite harbor harvest island ivory kettle ladder
    lantern letter linen little maple marble meadow mirror morning music narrow needle north olive
    orchard paper pebble pencil pepper planet pocket quiet rabbit river round saddle salt seven
    shadow silver simple slow stone summer table thread timber tunnel under valley velvet village
    violin walnut water willow window winter wooden yellow""".split()
)
_LONGEST_WORD: Final = max(map(len, _WORDS))
_LETTERS: Final = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
_LIKELY_WHEN_SAMPLED: Final = b"abcdefghijklmnopqrstuvwxyz "
_SPACE: Final = 0x20
_FULL_STOP: Final = 0x2E
_DIRECTIVE: Final = re.compile(
    rb"\[\[fake:(crash|exit|hang|eat-memory|sleep|broken)(?: ([0-9]+(?:\.[0-9]+)?))?\]\]"
)
_MIB: Final = 1 << 20


class FakeSession:
    """The session of kind ``fake``; see the module for what it says and obeys."""

    def __init__(self, *, max_seq_length: int = DEFAULT_MAX_SEQ_LENGTH, threads: int = 1) -> None:
        if max_seq_length < 2:
            raise ValueError(f"max_seq_length is {max_seq_length}, wanted 2 or more")
        self._info = SessionInfo(
            kind="fake",
            max_seq_length=max_seq_length,
            prefill_chunk=1,
            vocab_size=VOCAB_SIZE,
            dtype="fp32",
            threads=threads,
        )
        self._spelling: _Spelling | None = None
        self._next_position = 0
        self._eaten: list[bytearray] = []
        self._closed = False

    @classmethod
    def open(
        cls,
        artifact: LocalArtifact | None,
        *,
        threads: int = 1,
        max_seq_length: int = DEFAULT_MAX_SEQ_LENGTH,
    ) -> FakeSession:
        """Open one; ``artifact`` is not needed, and is ignored when it is of another kind."""
        if artifact is not None and artifact.artifact.kind == "fake":
            max_seq_length = artifact.artifact.max_seq_length
        return cls(max_seq_length=max_seq_length, threads=threads)

    @property
    def info(self) -> SessionInfo:
        """Limits and vocabulary; constant for the life of the session."""
        return self._info

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        """Start a row; obeys the directives in it. Raises as ``Session.prefill`` does."""
        if self._closed:
            raise ValueError("this session is closed; open another one")
        self.reset()
        ids = self._info.check_prompt(input_ids_1S)
        self._obey(_bytes_of(ids))
        spelling = _Spelling()
        spelling.feed_all(ids)
        self._spelling = spelling
        self._next_position = len(input_ids_1S)
        return spelling.step(want_logits=want_logits)

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        """Feed one token. Raises as ``Session.decode`` does."""
        if self._spelling is None:
            raise ValueError("decode without a row: a prefill must come first")
        self._info.check_decode(token_id, position, self._next_position)
        self._spelling.feed(token_id)
        self._next_position += 1
        return self._spelling.step(want_logits=want_logits)

    def reset(self) -> None:
        """Forget the current row, and give back the memory it ate."""
        self._spelling = None
        self._next_position = 0
        self._eaten.clear()

    def close(self) -> None:
        """Give everything back; closing twice is fine."""
        self.reset()
        self._closed = True

    def _obey(self, prompt: bytes) -> None:
        for name, number in _DIRECTIVE.findall(prompt):
            if name == b"crash":
                _die_of_a_fault()
            elif name == b"exit":
                os._exit(int(float(number or b"1")) & 0xFF)
            elif name == b"hang":
                while True:
                    time.sleep(3600)
            elif name == b"eat-memory":
                self._eat(float(number) * _MIB if number else float("inf"))
            elif name == b"sleep":
                time.sleep(float(number or b"1"))
            else:
                raise SessionBroken("the prompt told the fake session to break")

    def _eat(self, num_bytes: float) -> None:
        while num_bytes > 0:
            # Written, not only reserved: untouched pages would not count as used.
            self._eaten.append(bytearray(b"\x01") * int(min(num_bytes, 32 * _MIB)))
            num_bytes -= 32 * _MIB


class _Spelling:
    """All tokens of a row so far, folded into what the next token depends on."""

    def __init__(self) -> None:
        self._history = hashlib.blake2b(digest_size=8)
        self._word = self._draw_word()
        self._partial = b""
        self._ends_own_sentence = False

    def feed(self, token_id: int) -> None:
        self._history.update(_history_of([token_id]))
        if token_id in _LETTERS:
            if len(self._partial) <= _LONGEST_WORD:
                self._partial += bytes([token_id])
            self._ends_own_sentence = False
            return
        self._ends_own_sentence = token_id == _FULL_STOP and self._partial == self._word
        self._partial = b""
        self._word = self._draw_word()

    def feed_all(self, token_ids: Sequence[int]) -> None:
        """Feed tokens one after the other, but quickly.

        What came before the last word but one only counts as history.
        """
        last = _last_break(token_ids, len(token_ids))
        before = _last_break(token_ids, last)
        if before >= 0:
            self._history.update(_history_of(token_ids[: before + 1]))
            self._word, self._partial = self._draw_word(), b""
        if last >= 0:
            self._spell(token_ids[before + 1 : last])
            self.feed(token_ids[last])
        if last + 1 < len(token_ids):
            self._spell(token_ids[last + 1 :])
            self._ends_own_sentence = False

    def _spell(self, letters: Sequence[int]) -> None:
        """Feed letters; those behind the longest word change nothing but the history."""
        self._history.update(_history_of(letters))
        self._partial = (self._partial + bytes(letters))[: _LONGEST_WORD + 1]

    def step(self, *, want_logits: bool) -> Step:
        token_id = self._next_token_id()
        return Step(token_id, self._logits_1V(token_id) if want_logits else None)

    def _next_token_id(self) -> int:
        if self._ends_own_sentence:
            return EOS_TOKEN_ID if self._draw() % 2 else _SPACE
        if self._word.startswith(self._partial) and self._word != self._partial:
            return self._word[len(self._partial)]
        # The word is spelled, or the prompt ended in letters that do not begin it.
        return _FULL_STOP if self._word == self._partial and self._draw() % 4 == 0 else _SPACE

    def _draw(self) -> int:
        return int.from_bytes(self._history.digest(), "big")

    def _draw_word(self) -> bytes:
        return _WORDS[self._draw() % len(_WORDS)]

    def _logits_1V(self, token_id: int) -> Tensor:
        import torch

        noise = hashlib.shake_128(self._history.digest()).digest(VOCAB_SIZE)
        logits = [value / 128 - 12 for value in noise]
        for likely in _LIKELY_WHEN_SAMPLED:
            logits[likely] += 12
        logits[token_id] = 6.0
        return torch.tensor([logits], dtype=torch.float32)


def _history_of(token_ids: Sequence[int]) -> bytes:
    return struct.pack(f">{len(token_ids)}H", *token_ids)


def _last_break(token_ids: Sequence[int], end: int) -> int:
    """Index of the last token before ``end`` that is no letter; -1 if there is none."""
    for index in range(end - 1, -1, -1):
        if token_ids[index] not in _LETTERS:
            return index
    return -1


def _bytes_of(token_ids: list[int]) -> bytes:
    try:
        return bytes(token_ids)
    except ValueError:  # The one token that is no byte is among them.
        return bytes(token_id for token_id in token_ids if token_id != EOS_TOKEN_ID)


def _die_of_a_fault() -> None:
    # A core file would only fill the disk: this fault is on purpose.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    signal.raise_signal(signal.SIGSEGV)
