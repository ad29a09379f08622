"""``rdu-batch compile``: make an artifact from a checkpoint.

Promises: progress on stderr, one JSON line at the end of stdout, the tutorial's own flags in both
spellings. Does not: import torch before there is something to compile.
"""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from rdu_batch.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable


def _option(name: str, **settings: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A click option in both spellings, ``--a_b`` and ``--a-b``."""
    spellings = dict.fromkeys([f"--{name}", f"--{name.replace('_', '-')}"])
    return click.option(*spellings, name, **settings)


@click.command("compile")
@click.argument("model", required=False)
@click.option("--out", metavar="URL", help="Folder of the artifact: a path or any fsspec URL.")
@click.option(
    "--dtype", type=click.Choice(["bf16", "fp32"]), default="bf16", show_default=True,
    help="Type of the weights.",
)  # fmt: skip
@click.option(
    "--weights", type=click.Choice(["plain", "int8"]), default="plain", show_default=True,
    help="int8: one byte a weight, and says what that costs in perplexity; plain: as --dtype says.",
)  # fmt: skip
@_option("max_seq_length", type=int, required=True, help="Prompt and generated tokens together.")
@_option("model_name_or_path", help="Same as MODEL; with --checkpoint_name, only the tokenizer.")
@_option("config_name", help="config.json, folder or hub id; goes before the model's own config.")
@_option("checkpoint_name", help="File of weights by name: .safetensors, or saved by torch.")
@click.option("--tokenizer", help="Folder, hub id or .gguf file; default: the model's own.")
@_option("cache_dir", help="Where downloads are kept.")
@click.option(
    "--inference/--no-inference", default=True, show_default=True,
    help="Only kind samba can say no: its PEF then has what training needs, too.",
)  # fmt: skip
@click.option(
    "--kind", type=click.Choice(["inductor", "samba", "eager"]), default="inductor",
    show_default=True,
    help="samba: for SambaNova's RDU, needs SambaFlow here; eager: without compiled graphs.",
)  # fmt: skip
@_option("prefill_chunk", type=int, help="Tokens of one prefill call.")
@click.option(
    "--isa", type=click.Choice(["native", "avx2", "avx512"]), default="native", show_default=True,
    help="Instruction set the graphs may use; native: the best of this machine.",
)  # fmt: skip
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True,
    help="What the graphs run on; cuda: this machine's GPU, and others of its architecture.",
)  # fmt: skip
@_option("output_folder", help="The tutorial's way to say --out, with --pef_name.")
@_option("pef_name", help="Name of the artifact's folder in --output_folder.")
@_option("batch_size", type=int, default=1, help="Only 1: a session holds one row at a time.")
@_option("examples_to_generate", type=int, hidden=True)
def compile_command(model: str | None, **options: Any) -> None:
    """Compile MODEL (a transformers folder, a hub id or a .gguf file) to an artifact.

    With --config_name and --checkpoint_name the model is built from these, and MODEL is only where
    the tokenizer comes from. Compiling the same thing to the same place again does nothing.
    """
    out_url = _out_url(options)
    if options["batch_size"] != 1:
        raise UsageError(f"--batch_size {options['batch_size']}: a session holds one row; use 1")
    if model and options["model_name_or_path"] not in (None, model):
        raise UsageError(
            f"MODEL is {model}, --model_name_or_path is {options['model_name_or_path']}; "
            "give one of them; --tokenizer names another tokenizer"
        )
    print(json.dumps(_compile(model or options["model_name_or_path"], out_url, options)))


def _out_url(options: dict[str, Any]) -> str:
    folder, name = options["output_folder"], options["pef_name"]
    if options["out"]:
        if folder or name:
            raise UsageError("--out says where to; leave out --output_folder and --pef_name")
        return str(options["out"])
    if not (folder and name):
        raise UsageError("where to? give --out URL (or --output_folder with --pef_name)")
    return f"{folder.rstrip('/')}/{name}"


def _compile(model: str | None, out_url: str, options: dict[str, Any]) -> dict[str, Any]:
    """Compile, and give back what the JSON line says."""
    from rdu_batch.sessions.checkpoint import ModelSource
    from rdu_batch.sessions.compile import compile_artifact
    from rdu_batch.sessions.compile_settings import DEFAULT_PREFILL_CHUNK, CompileSettings

    started_s = time.monotonic()

    def say(line: str) -> None:
        print(f"{time.monotonic() - started_s:6.1f} s  {line}", file=sys.stderr, flush=True)

    source = ModelSource(
        model_name_or_path=model,
        config_name=options["config_name"],
        checkpoint_name=options["checkpoint_name"],
        tokenizer=options["tokenizer"],
        cache_dir=options["cache_dir"],
    )
    chunk = options["prefill_chunk"]
    settings = CompileSettings(
        dtype=options["dtype"],
        max_seq_length=options["max_seq_length"],
        kind=options["kind"],
        prefill_chunk=DEFAULT_PREFILL_CHUNK if chunk is None else chunk,
        instruction_set=None if options["isa"] == "native" else options["isa"],
        weights=options["weights"],
        device=options["device"],
        inference=options["inference"],
    )
    compiled = compile_artifact(source, out_url, settings, say)
    artifact = compiled.artifact
    return {
        "artifact": out_url,
        "digest": artifact.digest,
        "kind": artifact.kind,
        "dtype": artifact.dtype,
        "weights": artifact.weights,
        "max_seq_length": artifact.max_seq_length,
        "compile_s": round(time.monotonic() - started_s, 1),
        "already_compiled": compiled.already_compiled,
        "exit": 0,
    }
