"""What becomes of SambaFlow's exceptions; its classes are known by name alone."""

from __future__ import annotations

import pytest

from rdu_batch.errors import ArtifactError, RowError, SessionBroken
from rdu_batch.job.reasons import Reason
from rdu_batch.sessions.canary import canary_of
from rdu_batch.sessions.device_faults import HARDWARE, device_faults
from rdu_batch.sessions.door import SessionInfo


def raised(name: str, *bases: type[Exception], text: str = "word 0x7f3a") -> Exception:
    """An exception of a class that this program never imports."""
    return type(name, bases or (Exception,), {})(text)


@pytest.mark.parametrize("name", sorted(HARDWARE))
@pytest.mark.parametrize("in_row", [True, False])
def test_a_device_that_fails_ends_the_worker(name: str, in_row: bool) -> None:
    """Its rows run elsewhere; a class below one of these counts as it."""
    derived = raised("OddException", type(raised(name)))
    for error in (raised(name), derived):
        with (
            pytest.raises(SessionBroken, match=r"s3://a/: the RDU failed while x.*0x7f3a"),
            device_faults("x", url="s3://a/", in_row=in_row),
        ):
            raise error


def test_numbers_that_no_device_computes_end_the_row() -> None:
    """With the same words wherever it is tried: nothing of the device's own."""
    details = set()
    for text in ("tile 3", "tile 5"):
        with (
            pytest.raises(RowError) as caught,
            device_faults("x", url=f"/{text}", in_row=True),
        ):
            raise raised("NumericalException", text=text)
        assert caught.value.reason == Reason.NUMERICAL_ERROR
        details.add(caught.value.detail)
    assert len(details) == 1


def test_numbers_that_fail_without_a_row_end_the_worker() -> None:
    """There is no row to blame."""
    with (
        pytest.raises(SessionBroken, match="NumericalException"),
        device_faults("opening", url="/a"),
    ):
        raise raised("NumericalException")


def test_a_pef_for_another_runtime_ends_the_job() -> None:
    """No node of this cluster will load it."""
    text = "Failed to Create Session on RDU: PEF version mismatch"
    with (
        pytest.raises(ArtifactError, match=r"/a: its PEF was compiled for another version.*Failed"),
        device_faults("opening", url="/a"),
    ):
        raise RuntimeError(text)


def test_any_other_exception_ends_the_worker_with_what_it_said() -> None:
    """Under its own name."""
    with (
        pytest.raises(SessionBroken, match="SambaFlow failed while x: KeyError: 'odd'"),
        device_faults("x", url="/a", in_row=True),
    ):
        raise KeyError("odd")


def test_an_error_of_this_program_passes() -> None:
    """It says more than a wrapped one."""
    error = ArtifactError("no config")
    with pytest.raises(ArtifactError) as caught, device_faults("x", url="/a"):
        raise error
    assert caught.value is error


def test_a_canary_that_cannot_be_computed_ends_the_worker() -> None:
    """Its prompts are no row's, so they make no dead letter."""

    class Failing:
        info = SessionInfo("samba", 16, 1, 9, "fp32", 1)

        def reset(self) -> None:
            pass

        def prefill(self, *_: object, **__: object) -> object:
            raise RowError(Reason.NUMERICAL_ERROR, "no")

    with pytest.raises(SessionBroken, match="the canary's prompts cannot be computed"):
        canary_of(Failing())  # type: ignore[arg-type]
