"""Completions, asked for as a shell asks; and what is said to a misspelt verb."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rdu_batch.cli.main import VERBS


def completed(words, *, cwd):
    """What a real bash offers after these words, by the script that we print."""
    script = f"""
eval "$(rdu-batch completions bash)"
COMP_WORDS=({words})
COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_rdu_batch_completion rdu-batch
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    told = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        text=True,
        check=True,
        cwd=cwd,
        env=os.environ | {"PATH": path},
    )
    return told.stdout.split()


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("rdu-batch re", ["report", "retry-dead"]),
        ("rdu-batch doc", ["doctor"]),
        ("rdu-batch run --exec", ["--executor"]),
        ("rdu-batch run --executor in", ["inline"]),
    ],
)
def test_a_shell_offers_verbs_options_and_their_values(words, offered, tmp_path):
    """In a bash that has loaded the printed script."""
    assert set(offered) <= set(completed(words, cwd=tmp_path))


@pytest.mark.parametrize(
    ("verb", "kind"),
    [
        *((f"{verb}", "dir") for verb in ("status", "verify", "audit", "gc", "report")),
        *(("retry-dead", "dir"), ("bench", "dir"), ("probe", "dir"), ("doctor --store", "dir")),
        *(("compile", "file"), ("run", "file"), ("retry-dead out", "file")),
    ],
)
def test_a_shell_offers_what_lies_in_its_folder(verb, kind, tmp_path):
    """Folders where an output is wanted, files too where a model or a job file may be one."""
    words = f"rdu-batch {verb} o"
    told = subprocess.run(
        [sys.executable, "-m", "rdu_batch"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env=os.environ
        | {
            "_RDU_BATCH_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
    )
    assert told.stdout.strip() == f"{kind},o"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_its_script(shell):
    """It defines a completion of the program."""
    done = subprocess.run(
        [sys.executable, "-m", "rdu_batch", "completions", shell],
        capture_output=True,
        text=True,
        check=True,
    )
    assert "_RDU_BATCH_COMPLETE=" + shell in done.stdout
    assert "rdu-batch" in done.stdout


def test_completing_a_verb_imports_none():
    """So that a tab is answered at once."""
    code = (
        "import sys; from rdu_batch.cli import main; "
        "items = main.rdu_batch.shell_complete(main.rdu_batch.make_context('x', ['schema']), ''); "
        "print(len(items), [m for m in sys.modules if m.startswith('rdu_batch.cli.')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"{len(VERBS)} ['rdu_batch.cli.main']"


@pytest.mark.parametrize(
    ("typed", "meant"), [("pln", "did you mean 'plan'?"), ("xyzzy", "No such command")]
)
def test_a_misspelt_verb_is_told_the_nearest(typed, meant):
    """Exit 2; nothing is guessed for a word like no other."""
    done = subprocess.run(
        [sys.executable, "-m", "rdu_batch", typed],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"NO_COLOR": "1"},
    )
    assert done.returncode == 2
    assert meant in done.stderr
    assert meant in json.loads(done.stdout)["message"]
