"""One contract for every kind of session: what ``door.py`` promises, held to the letter.

A new kind joins by a line in ``KINDS``, and its way to an artifact in the fixture ``case``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch.sessions.canary import canary_of
from rdu_batch.sessions.fake import FakeSession
from rdu_batch.sessions.registry import open_session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rdu_batch.sessions.artifact import LocalArtifact
    from rdu_batch.sessions.door import Session, Step

KINDS = (
    "fake",
    "eager-llama",
    "eager-gpt2",
    pytest.param("samba-gpt2", marks=[pytest.mark.slow, pytest.mark.all_only]),
    pytest.param("samba_cached-gpt2", marks=[pytest.mark.slow, pytest.mark.all_only]),
    pytest.param("rdu_engine-gpt2", marks=[pytest.mark.slow, pytest.mark.all_only]),
    pytest.param("inductor-llama", marks=pytest.mark.slow),
    pytest.param("inductor-gpt2", marks=pytest.mark.slow),
)


@dataclass(frozen=True)
class Case:
    """A kind under test: how to open it, and how far apart its ways to the same logits may be."""

    open: Callable[[], Session]
    tolerance: float


@pytest.fixture(scope="module", params=KINDS)
def case(
    request: pytest.FixtureRequest,
    tiny_artifact: Callable[[str, str], LocalArtifact],
    open_on_stand_in: Callable[[LocalArtifact], Session],
) -> Case:
    """Each kind in turn; the fake is exact by nature, the others sum in another order."""
    kind, _, family = request.param.partition("-")
    if kind == "fake":
        return Case(lambda: FakeSession(max_seq_length=48), tolerance=0.0)
    if kind == "rdu_engine":
        artifact = tiny_artifact("samba_cached", family)
        return Case(lambda: open_on_stand_in(artifact, kind=kind), tolerance=1e-4)
    artifact = tiny_artifact(kind, family)
    if kind in ("samba", "samba_cached"):
        return Case(lambda: open_on_stand_in(artifact), tolerance=1e-4)
    return Case(lambda: open_session(kind, artifact, threads=1), tolerance=1e-4)


@pytest.fixture(scope="module")
def session(case: Case) -> Iterator[Session]:
    """One session for all tests, as a worker keeps one for all rows."""
    session = case.open()
    yield session
    session.close()


def prompt_of(length: int, session: Session, *, salt: int = 0) -> list[int]:
    """Ids without a pattern that a session could guess."""
    return [
        (37 * index * index + 11 * index + 5 + salt) % session.info.vocab_size
        for index in range(length)
    ]


def play(session: Session, prompt_ids: list[int], num_tokens: int, **asked: Any) -> list[Step]:
    """Prefill, then decode the session's own tokens."""
    steps = [session.prefill(prompt_ids, **asked)]
    for position in range(len(prompt_ids), len(prompt_ids) + num_tokens - 1):
        steps.append(session.decode(steps[-1].token_id, position, **asked))
    return steps


def ids_of(steps: list[Step]) -> list[int]:
    return [step.token_id for step in steps]


class TestSessionContract:
    """What each kind owes the decode loop."""

    def test_the_same_prompt_gives_the_same_bits(self, session: Session) -> None:
        """Tokens and logits, in one session."""
        first = play(session, prompt_of(9, session), 6, want_logits=True)
        again = play(session, prompt_of(9, session), 6, want_logits=True)
        assert ids_of(first) == ids_of(again)
        for one, other in zip(first, again, strict=True):
            assert one.logits_1V is not None
            assert other.logits_1V is not None
            assert one.logits_1V.equal(other.logits_1V)

    def test_another_session_gives_the_same_bits(self, case: Case, session: Session) -> None:
        """Which worker takes a row does not matter."""
        other_session = case.open()
        try:
            for length in lengths(session):
                one = session.prefill(prompt_of(length, session), want_logits=True)
                other = other_session.prefill(prompt_of(length, session), want_logits=True)
                assert one.token_id == other.token_id
                assert one.logits_1V is not None
                assert one.logits_1V.equal(other.logits_1V)
        finally:
            other_session.close()

    def test_every_session_of_an_artifact_has_the_same_canary(
        self, case: Case, session: Session
    ) -> None:
        """So a worker that is refused for its canary does compute other bits."""
        play(session, prompt_of(20, session), 3)
        other_session = case.open()
        assert canary_of(session) == canary_of(session) == canary_of(other_session)
        other_session.close()

    @pytest.mark.parametrize("shared", [0, 1, 8, 16, 17, 32, 40])
    def test_a_row_does_not_depend_on_the_row_before(self, session: Session, shared: int) -> None:
        """Not even on one that begins with the same tokens, and is longer."""
        prompt_ids = prompt_of(40, session)
        session.reset()
        alone = play(session, prompt_ids, 6, want_logits=True)
        play(session, [*prompt_ids[:shared], *prompt_of(46 - shared, session, salt=3)], 2)
        after = play(session, prompt_ids, 6, want_logits=True)
        assert ids_of(after) == ids_of(alone)
        assert all(
            one.logits_1V.equal(other.logits_1V)
            for one, other in zip(alone, after, strict=True)
            if one.logits_1V is not None and other.logits_1V is not None
        )

    def test_a_row_given_up_halfway_leaves_nothing_behind(self, session: Session) -> None:
        """A prefill may come at any time."""
        wanted = ids_of(play(session, prompt_of(5, session), 4))
        play(session, prompt_of(30, session), 3)
        assert ids_of(play(session, prompt_of(5, session), 4)) == wanted

    def test_asking_for_logits_does_not_change_the_tokens(self, session: Session) -> None:
        """And without being asked, a session hands out none."""
        plain = play(session, prompt_of(12, session), 5)
        with_logits = play(session, prompt_of(12, session), 5, want_logits=True)
        assert ids_of(plain) == ids_of(with_logits)
        assert all(step.logits_1V is None for step in plain)

    def test_the_token_is_the_arg_max_of_the_logits(self, session: Session) -> None:
        """Logits are [1, V] float32."""
        import torch

        for length in lengths(session):
            for step in play(session, prompt_of(length, session), 2, want_logits=True):
                logits_1V = step.logits_1V
                assert logits_1V is not None
                assert logits_1V.shape == (1, session.info.vocab_size)
                assert logits_1V.dtype == torch.float32
                assert step.token_id == logits_1V.argmax().item()

    def test_logits_belong_to_the_caller(self, session: Session) -> None:
        """Later calls do not write into them, and writing into them changes no later call."""
        wanted = ids_of(play(session, prompt_of(7, session), 4))
        step = session.prefill(prompt_of(7, session), want_logits=True)
        assert step.logits_1V is not None
        kept = step.logits_1V.clone()
        following = session.decode(step.token_id, 7, want_logits=True)
        assert step.logits_1V.equal(kept)
        step.logits_1V.fill_(1e9)
        assert following.logits_1V is not None
        following.logits_1V.fill_(1e9)
        assert session.decode(following.token_id, 8).token_id == wanted[2]

    @pytest.mark.parametrize("num_decoded", [1, 2, 7])
    def test_decoding_tokens_equals_a_prefill_of_the_longer_prompt(
        self, case: Case, session: Session, num_decoded: int
    ) -> None:
        """The cache holds what the tokens were, wherever they came from."""
        for length in lengths(session):
            prompt_ids = prompt_of(length + num_decoded, session)
            if len(prompt_ids) >= session.info.max_seq_length:
                continue
            whole = session.prefill(prompt_ids, want_logits=True)
            step = session.prefill(prompt_ids[:length], want_logits=True)
            for position in range(length, len(prompt_ids)):
                step = session.decode(prompt_ids[position], position, want_logits=True)
            assert step.logits_1V is not None
            assert whole.logits_1V is not None
            assert (step.logits_1V - whole.logits_1V).abs().max().item() <= case.tolerance

    def test_the_next_token_depends_on_every_token_before(self, session: Session) -> None:
        """Changing any one prompt token changes the logits: nothing is cut off or padded away."""
        prompt_ids = prompt_of(37, session)
        before = session.prefill(prompt_ids, want_logits=True).logits_1V
        for index in (0, 15, 16, 31, 36):
            changed = list(prompt_ids)
            changed[index] = (changed[index] + 1) % session.info.vocab_size
            after = session.prefill(changed, want_logits=True).logits_1V
            assert before is not None
            assert after is not None
            assert not before.equal(after)

    def test_a_prompt_that_leaves_room_for_one_token_fits(self, session: Session) -> None:
        """And that token's own decode is at the last position there is."""
        last = session.info.max_seq_length - 1
        step = session.prefill(prompt_of(last, session))
        session.decode(step.token_id, last)
        with pytest.raises(ValueError, match=str(last + 1)):
            session.decode(step.token_id, last + 1)

    def test_a_prompt_of_no_or_too_many_tokens_is_refused(self, session: Session) -> None:
        """Naming how many there were."""
        limit = session.info.max_seq_length
        for length in (0, limit, limit + 1):
            with pytest.raises(ValueError, match=str(length)):
                session.prefill(prompt_of(length, session))

    def test_a_decode_must_follow_the_last_position(self, session: Session) -> None:
        """Neither again, nor ahead, nor back."""
        step = session.prefill(prompt_of(5, session))
        for position in (-1, 0, 4, 6):
            with pytest.raises(ValueError, match="position"):
                session.decode(step.token_id, position)
        step = session.decode(step.token_id, 5)
        with pytest.raises(ValueError, match="position"):
            session.decode(step.token_id, 5)
        session.decode(step.token_id, 6)

    def test_reset_forgets_the_row(self, session: Session) -> None:
        """After it only a prefill makes sense, and it starts from nothing."""
        wanted = ids_of(play(session, prompt_of(20, session), 4))
        session.reset()
        with pytest.raises(ValueError, match=r"prefill|position"):
            session.decode(1, 23)
        session.reset()
        assert ids_of(play(session, prompt_of(20, session), 4)) == wanted

    def test_a_new_session_has_no_row(self, case: Case) -> None:
        """Its first call must be a prefill."""
        session = case.open()
        with pytest.raises(ValueError, match=r"prefill|position"):
            session.decode(1, 0)
        session.close()

    def test_ids_outside_the_vocabulary_are_refused(self, session: Session) -> None:
        """At any place of a prompt and in a decode."""
        for wrong in (-1, session.info.vocab_size):
            for prompt_ids in ([wrong], [1, wrong, 2], [1, 2, wrong]):
                with pytest.raises(ValueError, match=str(wrong)):
                    session.prefill(prompt_ids)
            session.prefill([1, 2, 3])
            with pytest.raises(ValueError, match=str(wrong)):
                session.decode(wrong, 3)

    def test_a_refused_call_does_not_harm_the_next_row(self, session: Session) -> None:
        """A programming error in one row stays there."""
        wanted = ids_of(play(session, prompt_of(18, session), 3))
        with pytest.raises(ValueError, match="-1"):
            session.prefill([*prompt_of(17, session), -1])
        assert ids_of(play(session, prompt_of(18, session), 3)) == wanted

    def test_any_sequence_of_ids_is_a_prompt(self, session: Session) -> None:
        """Lists and tuples alike; the caller's list is left alone."""
        prompt_ids = prompt_of(6, session)
        kept = list(prompt_ids)
        from_list = ids_of(play(session, prompt_ids, 2))
        assert prompt_ids == kept
        assert session.prefill(tuple(prompt_ids)).token_id == from_list[0]

    def test_info_is_constant_and_makes_sense(self, session: Session) -> None:
        """For the life of the session."""
        before = session.info
        play(session, prompt_of(3, session), 2)
        session.reset()
        assert session.info == before
        assert before.max_seq_length >= 2
        assert before.prefill_chunk >= 1
        assert before.vocab_size >= 2
        assert before.dtype in {"bf16", "fp32"}
        assert before.threads >= 1

    def test_closing_twice_is_fine_and_nothing_works_after(self, case: Case) -> None:
        """Neither call comes back with a token."""
        session = case.open()
        session.prefill([1, 2, 3])
        session.close()
        session.close()
        with pytest.raises(ValueError, match="closed"):
            session.prefill([1, 2, 3])
        with pytest.raises(ValueError, match=r"closed|prefill|position"):
            session.decode(1, 3)


def lengths(session: Session) -> list[int]:
    """Prompt lengths around one chunk and two, and the longest with room for one decode."""
    chunk = session.info.prefill_chunk
    wanted = {1, 2, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1}
    limit = session.info.max_seq_length
    return sorted({one for one in wanted if 1 <= one < limit} | {limit - 1})
