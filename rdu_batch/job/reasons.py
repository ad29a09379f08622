"""The reason classes of dead letters: the one list of them, for every room.

Promises: a reason that was written once keeps its name. Does not: decide anything.
"""

from __future__ import annotations

from enum import StrEnum


class Reason(StrEnum):
    """Why a row became a dead letter."""

    #: The line is not JSON as RFC 8259 has it; NaN and Infinity are not.
    NOT_JSON = "not_json"
    #: The line is not UTF-8, or a string holds half of a surrogate pair.
    NOT_UNICODE = "not_unicode"
    #: The line is JSON, but not an object.
    NOT_AN_OBJECT = "not_an_object"
    #: A key is given twice in one object.
    DUPLICATE_KEY = "duplicate_key"
    #: Too many arrays and objects inside each other.
    TOO_DEEP = "too_deep"
    #: The line has more bytes than the reader takes.
    LINE_TOO_LONG = "line_too_long"
    #: A field that the prompt needs is absent or null.
    MISSING_FIELD = "missing_field"
    #: A field that the prompt needs has another type than wanted.
    WRONG_TYPE = "wrong_type"
    #: The row's own generation settings (``generation.overrides_field``) are wrong.
    BAD_OVERRIDE = "bad_override"
    #: The template, or the model's chat template, cannot render this row.
    TEMPLATE_ERROR = "template_error"
    #: The prompt has no tokens at all, and the tokenizer has no BOS to begin with.
    EMPTY_PROMPT = "empty_prompt"
    #: The prompt leaves no room for one generated token.
    PROMPT_TOO_LONG = "prompt_too_long"
    #: Nothing is left to choose: every token that is possible would end the row too early.
    NOTHING_TO_CHOOSE = "nothing_to_choose"
    #: The device cannot compute with the numbers that this row leads to.
    NUMERICAL_ERROR = "numerical_error"
    #: The row took longer than ``limits.row_timeout_s``, alone and more than once.
    ROW_TIMEOUT = "row_timeout"
    #: The session's process died on this row, alone and more than once.
    SESSION_KILLED = "session_killed"
