"""Which words go on to SambaFlow, in whichever spelling they come; nothing is compiled here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import click
import pytest

from rdu_batch.cli.compile import _out_url, _settings, compile_command
from rdu_batch.cli.tutorial_flags import whole_numbers
from rdu_batch.cli.tutorial_run import has_output, is_tutorial, tutorial_run
from rdu_batch.errors import InputError, UsageError


def options_of(*words: str) -> dict[str, Any]:
    """What click makes of a compile command."""
    return compile_command.make_context("compile", list(words)).params


@pytest.mark.parametrize(
    "words",
    [
        "--arch sn20 --num-tiles 4 --n-chips 2 --resources-scaling-factors 0.8 4 1e-1 -o1",
        "--o1 --resources_scaling_factors 0.8 4 1e-1 --n_chips=2 --num_tiles 4 --arch=sn20",
    ],
)
def test_sambaflow_s_flags_go_on_as_typed_in_one_order(words: str) -> None:
    """However they are spelled and ordered: the same artifact. They choose kind samba."""
    settings = _settings(options_of("--max_seq_length", "64", *words.split()))
    assert settings.samba_flags == (
        *("--arch", "sn20", "--num-tiles", "4", "--n-chips", "2"),
        *("--resources-scaling-factors", "0.8", "4", "1e-1", "--o1"),
    )
    assert (settings.kind, settings.dtype) == ("samba", "fp32")


@pytest.mark.parametrize("flag", ["--optimization-rules", "--compiler_configs_file"])
def test_files_are_named_to_sambaflow(flag: str) -> None:
    """With its own spelling."""
    settings = _settings(options_of("--max-seq-length", "64", "-o0", flag, "rules.yaml"))
    assert settings.samba_flags == (flag.replace("_", "-"), "rules.yaml", "--o0")


def test_what_those_files_say_decides_the_artifact(tmp_path: Path) -> None:
    """Not only their names; one that is not there is an input error before anything is compiled."""
    from rdu_batch.sessions.compile import _flag_files

    rules = tmp_path / "rules.yaml"
    flags = ("--arch", "sn20", "--optimization-rules", str(rules), "--o1")
    with pytest.raises(InputError, match=r"rules\.yaml: cannot be read"):
        _flag_files(flags)
    rules.write_text("one")
    ((flag, sha256),) = _flag_files(flags)
    assert (flag, sha256) == ("--optimization-rules", hashlib.sha256(b"one").hexdigest())
    assert _flag_files(flags[:2]) == []


def test_without_such_flags_the_kind_is_inductor_and_a_log_level_changes_nothing() -> None:
    """Kind samba passes a level on if it is not the usual one."""
    base = ["--max_seq_length", "64"]
    plain = _settings(options_of(*base))
    assert (plain.kind, plain.dtype, plain.inference) == ("inductor", "bf16", True)
    assert _settings(options_of(*base, "--log-level=debug")) == plain
    as_they_are = _settings(options_of(*base, "--inference"))
    assert (as_they_are.kind, as_they_are.dtype) == ("inductor", "fp32")
    samba = _settings(options_of(*base, "--kind", "samba", "--log_level", "error"))
    assert samba.samba_flags == ()
    loud = _settings(options_of(*base, "--kind", "samba", "--log-level", "debug"))
    assert loud.samba_flags == ("--log-level", "debug")


@pytest.mark.parametrize("kind", ["inductor", "eager"])
def test_other_kinds_refuse_sambaflow_s_flags_with_a_reason(kind: str) -> None:
    """And a PEF for training, which is SambaFlow's, too."""
    for flag in (["--arch", "sn20"], ["--o1"], ["--no-inference"]):
        options = options_of("--max_seq_length", "64", "--kind", kind, *flag)
        with pytest.raises(UsageError, match="takes no flags of SambaFlow; use --kind samba"):
            _settings(options)


def test_graphs_and_their_lengths_are_settings() -> None:
    """Numbers with commas between."""
    words = ["--kind", "samba", "--graphs", "cached", "--prefill-lengths", "16,64"]
    settings = _settings(options_of("--max_seq_length", "64", *words))
    assert (settings.graphs, settings.prefill_lengths) == ("cached", (16, 64))
    assert whole_numbers(None, "--prefill_lengths") == ()
    with pytest.raises(UsageError, match="--prefill_lengths 1;2: wanted numbers with commas"):
        whole_numbers("1;2", "--prefill_lengths")


def test_a_factor_that_is_no_number_is_refused() -> None:
    """By click, with the flag's name."""
    with pytest.raises(click.BadParameter, match="'much' is no number"):
        options_of("--max_seq_length", "64", "--resources-scaling-factors", "0.8", "much", "1")


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["--out", "s3://m/a"], "s3://m/a"),
        (["--output-folder", "O/", "--pef-name=inference"], "O/inference"),
        (["--inference", "--pef_name", "p"], "./out/p"),
    ],
)
def test_an_artifact_lies_where_the_framework_puts_its_pef(words: list[str], place: str) -> None:
    """Folder and name have the framework's defaults in the tutorial's command alone."""
    base = ["--max_seq_length", "64"]
    assert _out_url(options_of(*base, *words)) == place
    for flag in ("--inference", "--no-inference"):
        first = _out_url(options_of(*base, flag, "--output-folder", "O"))
        assert first.startswith("O/2")
    for rest in ([], ["--pef-name", "p"], ["--output-folder", "O"]):
        with pytest.raises(UsageError, match="where to"):
            _out_url(options_of(*base, *rest))


@pytest.mark.parametrize(
    ("words", "is_one"),
    [
        ("--inference --pef a.pef", True),
        ("--data_dir x -p a", True),
        ("--pef=a", True),
        ("job.yaml --limit 3", False),
        ("job.yaml --set session.kind=eager", False),
        ("", False),
    ],
)
def test_the_words_say_which_form_of_run_it_is(words: str, is_one: bool) -> None:
    """Before any of them is parsed."""
    assert is_tutorial(words.split()) is is_one


def test_the_tutorial_s_defaults_are_kept() -> None:
    """20 prompts, 20 tokens, no checkpoint; either spelling."""
    assert not has_output(["--pef", "--data_dir"])
    assert has_output(["--output=x"])
    context = tutorial_run.make_context("run", ["--inference", "-p", "a", "--data-dir", "b"])
    assert context.params["max_tokens_to_generate"] == 20
    assert context.params["examples_to_generate"] == 20
    assert context.params["checkpoint_name"] == ""
    assert context.params["data_dir"] == "b"


def test_gpt2_small_s_config_is_the_tutorial_s() -> None:
    """What transformers reads of the shipped file is GPT-2 small, with its own activation."""
    from transformers import AutoConfig, GPT2Config

    path = Path(__file__).parents[2] / "jobs" / "models" / "gpt2_small_config.json"
    shipped, usual = AutoConfig.from_pretrained(path).to_dict(), GPT2Config().to_dict()
    differences = {key for key in shipped if shipped[key] != usual.get(key)}
    assert differences <= {"_name_or_path", "architectures", "n_ctx", "task_specific_params"}


def test_no_examples_are_no_job() -> None:
    """Rather than all rows, which is what a job without a limit runs."""
    words = ["--inference", "-p", "a", "--data-dir", "b", "--output", "c"]
    context = tutorial_run.make_context("run", [*words, "--examples_to_generate", "0"])
    with pytest.raises(UsageError, match="use --limit N, or leave it out"), context:
        tutorial_run.invoke(context)
