"""Where a text ends: stop strings over tokens, and text that ends in half a character.

Promises: a stop string is found whether it is one token, spans several, or lies inside one; the
cost of a look is bounded by the longest stop string, not by the length of the text.
Does not: know token ids' meaning; it asks ``decode`` alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

Decode = Callable[[Sequence[int]], str]

#: What decoding gives for bytes that are no character, or not yet one.
_REPLACEMENT: Final = "\ufffd"
#: Tokens of one UTF-8 character that may be missing at either end of a window: 4 bytes less one.
_PARTIAL_TOKENS: Final = 3
#: Tokens decoded in front of a stop string: decoders treat the first token of a text specially.
_CONTEXT_TOKENS: Final = 8


class StopFinder:
    """Looks for stop strings at the end of a growing list of tokens.

    A stop string counts only if it ends after the text of the first ``min_new_tokens`` tokens.
    """

    def __init__(self, stop: Sequence[str], decode: Decode, *, min_new_tokens: int = 0) -> None:
        self._stop = tuple(stop)
        self._decode = decode
        self._min_new_tokens = min_new_tokens
        #: Characters in which a stop string does not count; None until their tokens are there.
        self._num_free_chars: int | None = None if min_new_tokens else 0
        # A stop string of n bytes reaches over n tokens at most: each holds a byte or more of it.
        longest = max((len(one.encode("utf-8", "replace")) for one in self._stop), default=0)
        self._window_tokens = longest + _CONTEXT_TOKENS

    def ends(self, token_ids: Sequence[int]) -> bool:
        """Does the text of ``token_ids`` hold a stop string, now that its last token is there?

        Expects to have been asked after each token before.
        """
        if not self._stop or len(token_ids) <= self._min_new_tokens:
            return False
        if not self._in_window(token_ids):
            return False
        # The window began in the middle of the text: only the whole text decides. Rare enough.
        return self.cut(self._decode(token_ids), token_ids) is not None

    def cut(self, text: str, token_ids: Sequence[int]) -> str | None:
        """The ``text`` of ``token_ids`` up to its first stop string, or None if it holds none."""
        if not self._stop or len(token_ids) <= self._min_new_tokens:
            return None
        if self._num_free_chars is None:
            first_ids = token_ids[: self._min_new_tokens]
            self._num_free_chars = len(text_of_cut_tokens(first_ids, self._decode))
        start = self._first_start(text, self._num_free_chars)
        return None if start < 0 else text[:start]

    def _first_start(self, text: str, num_free_chars: int) -> int:
        """Where the first stop string begins that ends after so many characters; -1 for none."""
        starts = (text.find(one, max(0, num_free_chars + 1 - len(one))) for one in self._stop)
        return min((start for start in starts if start >= 0), default=-1)

    def _in_window(self, token_ids: Sequence[int]) -> bool:
        start = max(0, len(token_ids) - self._window_tokens)
        for earlier in range(_PARTIAL_TOKENS + 1):
            first = max(0, start - earlier)
            window = self._decode(token_ids[first:])
            if self._first_start(window, 0) >= 0:
                return True
            # Some decoders give up on a whole run of byte tokens when it begins inside a character,
            # so try the other places where the character may begin.
            if first == 0 or _REPLACEMENT not in window:
                return False
        return False


def text_of_cut_tokens(token_ids: Sequence[int], decode: Decode) -> str:
    """The text of tokens that were cut off at a limit, without half a character at its end."""
    text = decode(token_ids)
    if not text.endswith(_REPLACEMENT):
        return text
    for num_partial in range(1, min(_PARTIAL_TOKENS, len(token_ids)) + 1):
        whole = decode(token_ids[:-num_partial])
        if not whole.endswith(_REPLACEMENT):
            # The text's own beginning may be broken, where the decoder gave up on a whole run of
            # byte tokens; its end may hold characters that share a token with the half one.
            return whole + text[len(whole) :].rstrip(_REPLACEMENT)
    return text
