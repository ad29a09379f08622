"""What the READMEs say is so: links hold, commands exist, job files are right, a first try runs."""

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest

from rdu_batch.cli.main import rdu_batch
from rdu_batch.cli.tutorial_run import is_tutorial, tutorial_run
from rdu_batch.job.loading import load_spec

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    path.relative_to(ROOT)
    for pattern in ("*.md", "jobs/*.md", "deploy/**/*.md", "rdu_batch/**/*.md", "tests/**/*.md")
    for path in ROOT.glob(pattern)
)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)")
#: A path of the repository, said in passing.
PLACE = re.compile(r"`((?:tests|deploy|jobs|rdu_batch)/[\w./-]*\w\.\w+)`")
COMMAND = re.compile(r"(?:^|`)(?:\$ |\.venv/bin/)?rdu-batch ([^`]*?)(?:$|`)", re.MULTILINE)


def blocks(page, language):
    """The code blocks of a page in one language."""
    return [text for found, text in BLOCK.findall((ROOT / page).read_text()) if found == language]


def anchors(path):
    """What a link may point to in a page, as GitHub names its headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings}


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_and_places_exist(page):
    """Files, folders and headings; a page is never silent about a file that is gone."""
    text = (ROOT / page).read_text()
    for target, anchor in LINK.findall(text):
        if "://" in target:
            continue
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), (target, anchor)
    for place in PLACE.findall(text):
        assert any((folder / place).exists() for folder in (ROOT, (ROOT / page).parent)), place


def commands(page):
    """The words of each command of a page, behind ``rdu-batch``; prose is none."""
    text = re.sub(r" *\\\n *", " ", (ROOT / page).read_text())
    for found in COMMAND.findall(text):
        line = found.split("  #")[0].split(" # ")[0].split(" | ")[0].strip()
        verb = line.split(" ")[0]
        if re.fullmatch(r"[a-z-]+", verb):
            yield shlex.split(line)


def options_of(words):
    """Every option that the command of these words takes."""
    context = click.Context(rdu_batch)
    command = rdu_batch.get_command(context, words[0])
    assert command is not None, f"there is no verb {words[0]}"
    if isinstance(command, click.Group):
        command = command.get_command(context, words[1])
        assert command is not None, f"there is no {words[0]} {words[1]}"
    if words[0] == "run" and is_tutorial(words[1:]):
        command = tutorial_run
    found = {"--help"}
    for option in command.params:
        found.update(one.replace("_", "-") for one in (*option.opts, *option.secondary_opts))
    return found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_is_one(page):
    """Verbs and options exist."""
    for words in commands(page):
        known = options_of(words)
        for word in words[1:]:
            option = word.split("=")[0].replace("_", "-")
            if word.startswith("--") and len(word) > 2:
                assert option in known, " ".join(words)


def test_the_readme_has_commands_to_check():
    """The search finds them, in blocks and in passing."""
    found = {words[0] for words in commands(Path("README.md"))}
    assert {"compile", "plan", "run", "submit", "wait", "verify", "chaos", "doctor"} <= found


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_job_files_are_right(page):
    """Each whole job file goes through the door that a user's does."""
    for text in blocks(page, "yaml"):
        if "version: 1" in text:
            load_spec(text, source=str(page), overrides=(), date="2026-11-22", limit=None)


def test_the_first_night_of_the_readme_runs_as_it_stands(tmp_path):
    """Word for word: the job file is written, a day is run, and found complete."""
    (night,) = (text for text in blocks("README.md", "") if "<<'END'" in text)
    (tmp_path / "jobs").symlink_to(ROOT / "jobs")
    program = f'rdu-batch() {{ {shlex.quote(sys.executable)} -m rdu_batch "$@"; }}\n'
    done = subprocess.run(
        ["bash", "-euc", program + night],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["state"] for one in told] == ["complete", "already complete"]
    assert (told[0]["predictions"], told[0]["dead"]) == (257, 3)
    assert (tmp_path / "junit.xml").exists()
    heading = (tmp_path / "summary.md").read_text().splitlines()[0]
    assert f"```\n{heading}\n```" in (ROOT / "README.md").read_text()
