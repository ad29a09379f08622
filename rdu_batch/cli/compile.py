"""``rdu-batch compile``: make an artifact from a checkpoint.

Promises: progress on stderr, one JSON line at the end of stdout, the tutorial's own flags in both
spellings. The tutorial's command (one that says ``--inference`` or ``--no-inference``) differs from
any other in two things, as the tutorial's does: with a config and no checkpoint it compiles graphs
without weights, and without a place it writes to ``./out/TIME-PID``. Does not: import torch before
there is something to compile.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from rdu_batch.cli.tutorial_flags import (
    batch_size_option,
    check_batch_size,
    log_level_option,
    samba_flags,
    sambaflow_options,
    spelled,
    whole_numbers,
)
from rdu_batch.errors import UsageError
from rdu_batch.report.ci_text import json_line

if TYPE_CHECKING:
    from rdu_batch.sessions.compile_settings import CompileSettings


@click.command("compile")
# A path for completions alone: a hub id is none.
@click.argument("model", required=False, metavar="[MODEL]", type=click.Path(readable=False))
@click.option("--out", metavar="URL", help="Folder of the artifact: a path or any fsspec URL.")
@click.option(
    "--dtype", type=click.Choice(["bf16", "fp32"]),
    help="Type of the weights. [default: bf16; fp32, as the tutorial has them, with --inference "
    "and of kind samba, whose compiler decides itself what the RDU computes in]",
)  # fmt: skip
@click.option(
    "--weights", type=click.Choice(["plain", "int8"]), default="plain", show_default=True,
    help="int8: one byte a weight, and says what that costs in perplexity; plain: as --dtype says.",
)  # fmt: skip
@spelled("max_seq_length", type=int, required=True, help="Prompt and generated tokens together.")
@spelled(
    "model_name_or_path",
    help="Same as MODEL; with --checkpoint_name, or --inference and --config_name, only the "
    "tokenizer.",
)
@spelled("config_name", help="config.json, folder or hub id; goes before the model's own config.")
@spelled("checkpoint_name", help="File of weights by name: .safetensors, or saved by torch.")
@click.option("--tokenizer", help="Folder, hub id or .gguf file; default: the model's own.")
@spelled("cache_dir", help="Where downloads are kept.")
@click.option(
    "--inference/--no-inference", default=None,
    help="The tutorial's command: with --config_name and no --checkpoint_name, graphs without "
    "weights. Only kind samba can say no: its PEF then has what training needs, too.",
)  # fmt: skip
@click.option(
    "--kind", type=click.Choice(["inductor", "samba", "eager"]),
    help="samba: for SambaNova's RDU, needs SambaFlow here; eager: without compiled graphs. "
    "[default: samba where one of SambaFlow's flags is given, such as --arch; otherwise inductor, "
    "which runs anywhere]",
)  # fmt: skip
@click.option(
    "--graphs", type=click.Choice(["single", "cached"]), default="single", show_default=True,
    help="Kind samba: one graph that computes all positions for each token, or several that keep "
    "keys and values on the RDU.",
)  # fmt: skip
@spelled("prefill_lengths", metavar="N,...", help="--graphs cached: lengths of its prefill graphs.")
@click.option(
    "--gelu", type=click.Choice(["config", "erf"]), default="config", show_default=True,
    help="erf: the exact GELU for one by tanh, as the tutorial's patch for the RDU has it.",
)  # fmt: skip
@spelled("prefill_chunk", type=int, help="Tokens of one prefill call.")
@click.option(
    "--isa", type=click.Choice(["native", "avx2", "avx512"]), default="native", show_default=True,
    help="Instruction set the graphs may use; native: the best of this machine.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
    help="What the graphs run on; cuda: this machine's GPU, and others of its architecture.",
)  # fmt: skip
@spelled("output_folder", help="The tutorial's way to say --out, with --pef_name.")
@spelled("pef_name", help="Name of the artifact's folder in --output_folder.")
@batch_size_option
@log_level_option
@sambaflow_options
@spelled("examples_to_generate", type=int, hidden=True)
def compile_command(model: str | None, **options: Any) -> None:
    """Compile MODEL (a transformers folder, a hub id or a .gguf file) to an artifact.

    With --config_name and --checkpoint_name the model is built from these, and MODEL is only where
    the tokenizer comes from. Compiling the same thing to the same place again does nothing.
    """
    out_url = _out_url(options)
    check_batch_size(options["batch_size"])
    if model and options["model_name_or_path"] not in (None, model):
        raise UsageError(
            f"MODEL is {model}, --model_name_or_path is {options['model_name_or_path']}; "
            "give one of them; --tokenizer names another tokenizer"
        )
    # The tutorial's --config_name means a new model, of which the run names the weights.
    without_weights = (
        options["inference"] is not None
        and options["config_name"] is not None
        and not (model or options["checkpoint_name"])
    )
    model = model or options["model_name_or_path"]
    print(json_line(_compile(model, out_url, options, without_weights=without_weights)))


def _out_url(options: dict[str, Any]) -> str:
    folder, name = options["output_folder"], options["pef_name"]
    if options["out"]:
        if folder or name:
            raise UsageError("--out says where to; leave out --output_folder and --pef_name")
        return str(options["out"])
    if options["inference"] is None and not (folder and name):
        raise UsageError("where to? give --out URL (or --output_folder with --pef_name)")
    name = name or f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    return f"{(folder or './out').rstrip('/')}/{name}"


def _compile(
    model: str | None, out_url: str, options: dict[str, Any], *, without_weights: bool
) -> dict[str, Any]:
    """Compile, and give back what the JSON line says."""
    from rdu_batch.sessions.checkpoint import ModelSource
    from rdu_batch.sessions.compile import compile_artifact

    started_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started_s:6.1f} s  {line}", file=sys.stderr, flush=True)

    source = ModelSource(
        model_name_or_path=model,
        config_name=options["config_name"],
        checkpoint_name=options["checkpoint_name"],
        tokenizer=options["tokenizer"],
        cache_dir=options["cache_dir"],
        without_weights=without_weights,
    )
    settings = _settings(options)
    compiled = compile_artifact(source, out_url, settings, say)
    artifact = compiled.artifact
    if not artifact.has_weights:
        say("compiled without weights: name them with `rdu-batch run --checkpoint_name FILE`")
    pef = next((name for name in artifact.files if name.endswith(".pef")), None)
    return {
        "artifact": out_url,
        "digest": artifact.digest,
        "kind": artifact.kind,
        "dtype": artifact.dtype,
        "weights": artifact.weights if artifact.has_weights else None,
        "max_seq_length": artifact.max_seq_length,
        **({} if pef is None else {"pef": f"{out_url.rstrip('/')}/{pef}"}),
        "compile_s": round(time.monotonic() - started_s, 1),
        "already_compiled": compiled.already_compiled,
        "exit": 0,
    }


def _settings(options: dict[str, Any]) -> CompileSettings:
    from rdu_batch.sessions.compile_settings import DEFAULT_PREFILL_CHUNK, CompileSettings

    kind = options["kind"] or ("samba" if samba_flags(options, for_samba=False) else "inductor")
    chunk = options["prefill_chunk"]
    return CompileSettings(
        dtype=options["dtype"]
        or ("fp32" if kind == "samba" or options["inference"] is not None else "bf16"),
        max_seq_length=options["max_seq_length"],
        kind=kind,
        prefill_chunk=DEFAULT_PREFILL_CHUNK if chunk is None else chunk,
        instruction_set=None if options["isa"] == "native" else options["isa"],
        weights=options["weights"],
        device=options["device"],
        inference=options["inference"] is not False,
        samba_flags=samba_flags(options, for_samba=kind == "samba"),
        graphs=options["graphs"],
        prefill_lengths=whole_numbers(options["prefill_lengths"], "--prefill_lengths"),
        gelu=options["gelu"],
    )
