"""The fake session: what it says, and that a row can make it misbehave."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rdu_batch.errors import SessionBroken
from rdu_batch.job.prompt import Prompt
from rdu_batch.job.spec import GenerationSpec
from rdu_batch.sessions.decode_loop import FinishReason, Generation, generate
from rdu_batch.sessions.fake import FakeSession
from rdu_batch.sessions.tokenizer import ByteTokenizer

ROOT = Path(__file__).parents[2]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
        check=False,
    )


def feed(prompt: str, *, before: str = "", after: str = "print('came back', flush=True)") -> str:
    """Code of a process that feeds one prompt to a fake session."""
    return (
        "import resource, signal\nfrom rdu_batch.sessions.fake import FakeSession\n"
        f"session = FakeSession()\n{before}\nprint('opened', flush=True)\n"
        f"session.prefill({prompt!r}.encode())\n{after}\n"
    )


def generate_text(prompt: str, max_new_tokens: int = 400) -> Generation:
    tokenizer = ByteTokenizer()
    prompt_ids = tokenizer.encode(Prompt(prompt, None), date=None)
    generation = GenerationSpec(max_new_tokens=max_new_tokens)
    return generate(FakeSession(), tokenizer, prompt_ids, generation, row_seed=0)


def test_predictions_are_words_and_end_by_eos_after_numbers_of_tokens_that_vary() -> None:
    """A person who looks at a dry run sees text, short and long."""
    found = [generate_text(f"Question {number}: why?") for number in range(100)]
    texts = [one.text for one in found]
    assert all(
        text.isascii() and text.replace(" ", "").replace(".", "").isalpha() for text in texts
    )
    assert sum(one.finish_reason is FinishReason.EOS for one in found) > 95
    assert len({one.num_generated_tokens for one in found}) > 30
    assert len(set(texts)) > 95


def test_its_tokens_are_pinned() -> None:
    """Other tokens under the same FAKE_ARTIFACT_DIGEST would break a resume: raise its number."""
    assert generate_text("Question 0: what is it?").text == "cloud walnut apple bright candle."
    assert generate_text("Question 2: what is it?").text == "carpet. wooden linen."


def test_greedy_generation_imports_neither_torch_nor_transformers() -> None:
    """Dry runs and runner tests start in no time."""
    code = feed("hello", after="import sys\nprint([m in sys.modules for m in MODULES])")
    done = run_python("MODULES = ['torch', 'transformers', 'numpy']\n" + code)
    assert done.stdout == "opened\n[False, False, False]\n", done.stderr


@pytest.mark.parametrize(
    ("directive", "returncode"), [("crash", -signal.SIGSEGV), ("exit 3", 3), ("exit", 1)]
)
def test_a_row_can_end_the_process(directive: str, returncode: int) -> None:
    """By a fault, or by an exit code of its choice."""
    done = run_python(feed(f"some text [[fake:{directive}]] more text"))
    assert (done.returncode, done.stdout) == (returncode, "opened\n")


def test_a_row_can_hang() -> None:
    """Only a signal gets the process out of the call."""
    alarm = (
        "def ring(*_):\n    raise SystemExit(7)\n"
        "signal.signal(signal.SIGALRM, ring)\nsignal.setitimer(signal.ITIMER_REAL, 0.3)"
    )
    done = run_python(feed("[[fake:hang]]", before=alarm))
    assert (done.returncode, done.stdout) == (7, "opened\n")


def test_a_row_can_eat_memory_until_something_stops_it() -> None:
    """Here a limit on the address space does."""
    limit = "resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))"
    done = run_python(feed("[[fake:eat-memory]]", before=limit))
    assert (done.returncode, done.stdout) == (1, "opened\n")
    assert "MemoryError" in done.stderr


@pytest.mark.parametrize("forget", ["reset()", "prefill(b'the next row')", "close()"])
def test_a_row_can_hold_some_memory_until_it_is_forgotten(forget: str) -> None:
    """The pages are written, so a watcher of resident memory sees them."""
    page_bytes = 4096
    after = (
        "def resident(): return int(open('/proc/self/statm').read().split()[1])\n"
        f"held = resident()\nsession.{forget}\nprint(held - resident())"
    )
    done = run_python(feed("[[fake:eat-memory 96]]", after=after))
    freed_pages = int(done.stdout.split()[-1])
    assert freed_pages * page_bytes > 90 << 20


def test_a_row_can_take_its_time_and_still_be_predicted() -> None:
    """The sleep is over before the call returns."""
    started = time.monotonic()
    step = FakeSession().prefill(b"[[fake:sleep 0.2]]")
    assert time.monotonic() - started >= 0.2
    assert step.token_id < 256


def test_a_row_can_break_the_session() -> None:
    """As a device that fails would."""
    with pytest.raises(SessionBroken, match="told the fake session to break"):
        FakeSession().prefill(b"[[fake:broken]]")


def test_what_is_no_directive_is_plain_text() -> None:
    """A typing error in a directive does nothing but change the hash of the prompt."""
    for text in (b"[[fake:dance]]", b"[fake:crash]", b"[[fake:exit three]]", b"[[fake:crash 1 2]]"):
        assert FakeSession().prefill(text).token_id < 256


def test_a_directive_in_chat_messages_counts_too() -> None:
    """Whatever shape the prompt has, the row can tell."""
    messages = ({"role": "user", "content": "[[fake:broken]]"},)
    prompt_ids = ByteTokenizer().encode(Prompt(None, messages), date=None)
    with pytest.raises(SessionBroken):
        FakeSession().prefill(prompt_ids)
