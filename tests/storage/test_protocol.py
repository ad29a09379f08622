"""Which commit protocol follows from what was found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rdu_batch.storage.protocol import (
    ADVICE,
    MEANING,
    Finding,
    Guarantee,
    ProbeReport,
    Protocol,
    Verdict,
    choose_protocol,
)

ALL_HELD = dict.fromkeys(Guarantee, Verdict.HELD)
OF_RACES = {Guarantee.CREATE_ONCE, Guarantee.CREATE_RACE}
NOT_HELD = [Verdict.BROKEN, Verdict.UNSUPPORTED, None]


def without(guarantee: Guarantee, verdict: Verdict | None) -> dict[Guarantee, Verdict]:
    """All held but this one; None leaves it out."""
    changed = {**ALL_HELD, guarantee: verdict}
    return {key: value for key, value in changed.items() if value is not None}


def test_a_store_that_holds_everything_is_fenced_by_create_once() -> None:
    """The only way to exit 0."""
    assert choose_protocol(ALL_HELD) is Protocol.CREATE_ONCE


@pytest.mark.parametrize("verdict", NOT_HELD)
@pytest.mark.parametrize("guarantee", sorted(OF_RACES))
def test_without_create_once_one_writer_alone_may_use_it(
    guarantee: Guarantee, verdict: Verdict | None
) -> None:
    """Broken, unsupported or never looked at: none of them counts as held."""
    assert choose_protocol(without(guarantee, verdict)) is Protocol.SINGLE_WRITER


@pytest.mark.parametrize("verdict", NOT_HELD)
@pytest.mark.parametrize("guarantee", sorted(set(Guarantee) - OF_RACES))
def test_without_anything_else_it_cannot_hold_an_output(
    guarantee: Guarantee, verdict: Verdict | None
) -> None:
    """A single writer, too, reads what it wrote, lists it, copies it and deletes it."""
    assert choose_protocol(without(guarantee, verdict)) is Protocol.NONE


@given(st.dictionaries(st.sampled_from(Guarantee), st.sampled_from(Verdict)))
def test_one_more_guarantee_never_makes_the_protocol_weaker(
    verdicts: dict[Guarantee, Verdict],
) -> None:
    """From none over one writer to create-once."""
    order = [Protocol.NONE, Protocol.SINGLE_WRITER, Protocol.CREATE_ONCE]
    before = order.index(choose_protocol(verdicts))
    for guarantee in Guarantee:
        after = choose_protocol({**verdicts, guarantee: Verdict.HELD})
        assert order.index(after) >= before


def test_every_guarantee_and_every_protocol_is_said_in_words() -> None:
    """The table of the verb would fail on one without."""
    assert set(MEANING) == set(Guarantee)
    assert set(ADVICE) == set(Protocol)
    assert "output.single_writer: true" in ADVICE[Protocol.SINGLE_WRITER]
    assert "single_writer" not in ADVICE[Protocol.NONE]


def test_a_report_is_plain_json_values() -> None:
    """With what was seen of each guarantee."""
    finding = Finding(Guarantee.WHOLE_WRITE, Verdict.BROKEN, "half of it")
    report = ProbeReport("s3://b/x", None, (finding,), {"put": 1.5})
    assert report.to_json() == {
        "url": "s3://b/x",
        "protocol": "none",
        "create_once_by": None,
        "findings": {"whole_write": {"verdict": "broken", "seen": "half of it"}},
        "latency_ms": {"put": 1.5},
        "advice": ADVICE[Protocol.NONE],
    }
