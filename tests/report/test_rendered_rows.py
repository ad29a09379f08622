"""Sampled prompts on a terminal: read, never obeyed."""

from __future__ import annotations

from typing import Any

from rdu_batch.report.rendered_rows import MAX_SHOWN_CHARS, rendered_lines


def row(**changes: Any) -> dict[str, Any]:
    """A sound row of a short prompt, with changes."""
    return {
        "path": "a.jsonl",
        "line": 3,
        "prompt": "hello",
        "messages": None,
        "num_prompt_tokens": 1234,
        "num_cut_tokens": 0,
        "dead_reason": None,
        "dead_detail": None,
        **changes,
    }


def test_what_a_terminal_would_obey_is_an_escape_and_lines_stay_lines() -> None:
    """Escape codes, carriage returns, marks of direction, separators; in names and details too."""
    found = rendered_lines(
        [
            row(prompt="a\x1b[2J\r\u202eb\n\u2028\x9bGr\u00fc\u00dfe", path="\x1b.jsonl"),
            row(dead_reason="not_json", dead_detail="\x07", prompt=None, num_prompt_tokens=None),
        ]
    )
    assert found == [
        "\\u001b.jsonl:3  1,234 tokens",
        "  | a\\u001b[2J\\r\\u202eb",
        "  | \\u2028\\u009bGr\u00fc\u00dfe",
        "a.jsonl:3  dead letter: not_json: \\u0007",
    ]


def test_messages_have_their_roles_and_a_cut_prompt_says_so() -> None:
    """A role is a text of the row, too."""
    messages = [{"role": "sys\x1btem", "content": "be\nbrief"}, {"role": "user", "content": ""}]
    found = rendered_lines([row(prompt=None, messages=messages, num_cut_tokens=7)])
    assert found == [
        "a.jsonl:3  1,234 tokens, 7 cut; the prompt as it is before that",
        "  sys\\u001btem:",
        "  | be",
        "  | brief",
        "  user:",
        "  | ",
    ]


def test_a_long_prompt_is_shown_up_to_a_length() -> None:
    """With what was left out."""
    assert rendered_lines([row(prompt="x" * (MAX_SHOWN_CHARS + 1500))])[1:] == [
        "  | " + "x" * MAX_SHOWN_CHARS,
        "  ... and 1,500 characters more",
    ]
