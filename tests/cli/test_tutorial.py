"""The tutorial's two documented commands, as they are typed, and what else its flags can mean.

The oracle is transformers alone: a GPT-2 with the exact GELU, as the tutorial's patch has it, asked
for as the tutorial asks, and printed as it prints. SambaFlow is the stand-in.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

# What is compiled once serves several tests.
pytestmark = pytest.mark.xdist_group("tutorial")

ROOT = Path(__file__).parents[2]
SEPARATOR = "\n--------------------\n"
END = "<|endoftext|>"
#: The products of a block that the tutorial's patch transposes, and so its checkpoints.
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")
PROMPTS = ["Warm and funny:", "Two dull hours.", "Grüße, 你好!", "a b c", "It was"]
CONFIG = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "vocab_size": 300,
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 2,
    "activation_function": "gelu_new",
    "initializer_range": 0.3,
    "bos_token_id": 299,
    "eos_token_id": 299,
}


@dataclass(frozen=True)
class Tutorial:
    """A folder in which the tutorial's commands can be typed, and what they must print."""

    folder: Path
    model: Any
    tokenizer: Any
    max_seq_length: int

    def rdu_batch(self, *words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """Run the command line there; SambaFlow is the stand-in."""
        path = os.pathsep.join([str(ROOT / "tests" / "stand_ins"), str(ROOT)])
        cache = str(self.folder / "cache")
        done = subprocess.run(
            [sys.executable, "-m", "rdu_batch", *map(str, words)],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": path, "RDU_BATCH_CACHE": cache, **environment},
            capture_output=True,
            check=False,
        )
        print(done.stderr.decode())  # noqa: T201 - shown where a test fails
        return done

    def compile(self, *words: object) -> subprocess.CompletedProcess[bytes]:
        """The tutorial's compile command, without what only SambaFlow takes."""
        return self.rdu_batch(
            *("compile", "--inference", "--max_seq_length", self.max_seq_length),
            *("--batch-size", 1, "--config_name", "configuration/config.json"),
            *("--model_name_or_path", "gpt2", "--log-level=error", *words),
        )

    def run(self, *words: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
        """The tutorial's run command, up to the checkpoint and the PEF."""
        return self.rdu_batch(
            *("run", "--inference", "--data_dir", "data/finalized_prediction_inputs.jsonl"),
            *("--max_tokens_to_generate", 20, "--batch-size", 1),
            *(
                "--max_seq_length",
                self.max_seq_length,
                "--config_name",
                "configuration/config.json",
            ),
            *("--model_name_or_path", "gpt2", "--log-level=error", *words),
            **environment,
        )

    def wanted(self, prompts: list[str], *, max_tokens: int = 20) -> bytes:
        """What the tutorial prints, by transformers."""
        import torch

        texts = []
        for prompt in prompts:
            ids_1S = self.tokenizer(prompt, return_tensors="pt").input_ids
            with torch.no_grad():
                made_1N = self.model.generate(
                    ids_1S,
                    attention_mask=torch.ones_like(ids_1S),
                    max_length=ids_1S.shape[-1] + max_tokens,
                    pad_token_id=self.tokenizer.eos_token_id,
                    do_sample=False,
                    use_cache=False,
                )
            texts.append(self.tokenizer.decode(made_1N.squeeze(0)))
        return (SEPARATOR.join(texts) + "\n").encode()


def save_tokenizer(folder: Path, vocab_size: int) -> Any:
    """One token a byte, then names that no text has, then the end: GPT-2's vocabulary in small."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces += [f"~{index}~" for index in range(vocab_size - 1 - len(pieces))]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=END, eos_token=END)
    fast.save_pretrained(folder)
    assert len(fast) == vocab_size
    return fast


def exact_model(config: dict[str, Any], seed: int, scale: float) -> Any:
    """A GPT-2 with the exact GELU and fixed random weights; its end is a likely token."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(**{**config, "activation_function": "gelu"})).eval()
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if ".ln_" not in name and not name.endswith(".bias"):
                weight.normal_(0.0, scale, generator=random)
        model.transformer.wte.weight[config["eos_token_id"]] *= 1.5
    return model


def make_tutorial(folder: Path, config: dict[str, Any], seed: int, scale: float) -> Tutorial:
    import torch

    for name in ("configuration", "data", "OUT"):
        (folder / name).mkdir()
    tokenizer = save_tokenizer(folder / "gpt2", config["vocab_size"])
    (folder / "configuration" / "config.json").write_text(json.dumps(config))
    model = exact_model(config, seed, scale)
    state = {name: tensor for name, tensor in model.state_dict().items() if "lm_head" not in name}
    torch.save(state, folder / "OUT" / "plain.pt")
    patched = {
        name: tensor.t().contiguous() if name.endswith(TRANSPOSED) else tensor
        for name, tensor in state.items()
    }
    torch.save(patched, folder / "OUT" / "train_movie_review_checkpoint.pt")
    with (folder / "data" / "finalized_prediction_inputs.jsonl").open("w") as lines:
        for prompt in PROMPTS:
            print(json.dumps({"prompt": prompt, "completion": "positive"}), file=lines)
    return Tutorial(folder, model, tokenizer, config["n_positions"])


@pytest.fixture(scope="module")
def tutorial(tmp_path_factory: pytest.TempPathFactory) -> Tutorial:
    """With a tiny GPT-2; some predictions end by the end of text, others by the limit."""
    made = make_tutorial(tmp_path_factory.mktemp("tutorial"), CONFIG, seed=11, scale=0.3)
    texts = made.wanted(PROMPTS).decode().removesuffix("\n").split(SEPARATOR)
    assert 0 < sum(text.endswith(END) for text in texts) < len(PROMPTS)
    return made


@pytest.fixture(scope="module")
def pef(tutorial: Tutorial) -> Path:
    """Compiled by the documented command, word for word but for the length."""
    done = tutorial.compile(
        *("--arch", "sn20", "--pef-name=inference", "--output-folder=OUT"),
        *("--num-tiles", 4, "--resources-scaling-factors", 0.8, 0.8, 0.8),
    )
    assert done.returncode == 0, done.stdout
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["kind"], said["weights"]) == ("samba", None)
    assert said["pef"] == "OUT/inference/inference.pef"
    return tutorial.folder / "OUT" / "inference" / "inference.pef"


@pytest.mark.slow
def test_the_documented_commands_print_what_a_patched_model_says(
    tutorial: Tutorial, pef: Path
) -> None:
    """The PEF lies where the tutorial says; standard output is the tutorial's, byte for byte."""
    assert pef.is_file()
    assert not (pef.parent / "weights.safetensors").exists()
    note = json.loads((pef.parent / "samba.json").read_text())
    assert note["flags"] == [
        *("--arch", "sn20", "--num-tiles", "4"),
        *("--resources-scaling-factors", "0.8", "0.8", "0.8"),
    ]
    checkpoint = ["--checkpoint_name", "OUT/train_movie_review_checkpoint.pt"]
    done = tutorial.run(*checkpoint, "--pef", "OUT/inference/inference.pef")
    assert done.returncode == 0
    assert done.stdout == tutorial.wanted(PROMPTS)


@pytest.mark.slow
@pytest.mark.all_only
def test_a_pef_that_was_compiled_for_training_runs_forward(tutorial: Tutorial) -> None:
    """Without ``--inference``; underscores, the artifact's folder, and weights as transformers'."""
    done = tutorial.rdu_batch(
        *("compile", "--no-inference", "--kind", "samba", "--max_seq_length", 64, "-b", 1),
        *("--config_name", "configuration/config.json", "--model_name_or_path", "gpt2"),
        *("--output_folder", "OUT", "--pef_name", "training", "-o1"),
    )
    assert done.returncode == 0
    note = json.loads((tutorial.folder / "OUT/training/samba.json").read_text())
    assert (note["inference"], note["flags"]) == (False, ["--o1"])
    done = tutorial.rdu_batch(
        *("run", "--inference", "--data-dir", "data", "--examples-to-generate", 2),
        *("-p", "OUT/training", "--checkpoint-name", "OUT/plain.pt"),
    )
    assert done.returncode == 0
    assert done.stdout == tutorial.wanted(PROMPTS[:2])


@pytest.mark.slow
@pytest.mark.all_only
def test_graphs_with_a_cache_print_the_same(tutorial: Tutorial) -> None:
    """Their weights come as late; the config has the exact GELU, as no patch puts it there."""
    done = tutorial.compile(
        *("--kind", "samba", "--graphs", "cached", "--prefill_lengths", "16,64", "--gelu", "erf"),
        *("--output-folder", "OUT", "--pef-name", "cached"),
    )
    assert done.returncode == 0
    done = tutorial.run("--checkpoint_name", "OUT/plain.pt", "--pef", "OUT/cached/cached.pef")
    assert done.returncode == 0
    assert done.stdout == tutorial.wanted(PROMPTS)


@pytest.mark.slow
@pytest.mark.all_only
def test_the_same_commands_on_inductor_and_eager_print_the_same(tutorial: Tutorial) -> None:
    """With the exact GELU, in fp32; SambaFlow's flags are refused with a reason."""
    words = ["--kind", "inductor", "--dtype", "fp32", "--gelu", "erf", "--output-folder", "OUT"]
    done = tutorial.compile(*words, "--pef-name", "inductor", "--arch", "sn20")
    assert done.returncode == 2
    assert b"takes no flags of SambaFlow; use --kind samba" in done.stderr
    assert tutorial.compile(*words, "--pef-name", "inductor").returncode == 0
    run = ["--checkpoint_name", "OUT/train_movie_review_checkpoint.pt", "--pef", "OUT/inductor"]
    wanted = tutorial.wanted(PROMPTS)
    for kind in ("inductor", "eager"):
        done = tutorial.run(*run, "--kind", kind)
        assert done.returncode == 0
        assert done.stdout == wanted


@pytest.fixture(scope="module")
def eager(tutorial: Tutorial) -> str:
    """Of kind eager, without weights, in the framework's own place."""
    done = tutorial.compile("--kind", "eager", "--dtype", "fp32", "--gelu", "erf")
    assert done.returncode == 0
    artifact: str = json.loads(done.stdout.splitlines()[-1])["artifact"]
    return artifact


def test_without_a_place_the_artifact_has_the_framework_s(tutorial: Tutorial, eager: str) -> None:
    """Time and process id, below ./out."""
    assert re.fullmatch(r"\./out/\d{8}-\d{6}-\d+", eager)
    assert (tutorial.folder / eager / "artifact.json").is_file()


def test_without_a_checkpoint_no_weights_are_made_up(tutorial: Tutorial, eager: str) -> None:
    """Exit 8, printed or as a job; only a job says so on standard output."""
    done = tutorial.run("--pef", eager)
    assert (done.returncode, done.stdout) == (8, b"")
    assert b"has no weights, and none are made up" in done.stderr
    done = tutorial.run("--pef", eager, "--output", "out/job", "--executor", "inline")
    assert done.returncode == 8
    assert json.loads(done.stdout)["exit"] == 8


def test_only_the_first_prompts_are_continued(tutorial: Tutorial, eager: str) -> None:
    """A ``.json`` file is taken; the limit is the flag's."""
    rows = [{"prompt": prompt} for prompt in PROMPTS]
    (tutorial.folder / "prompts.json").write_text(json.dumps(rows))
    done = tutorial.rdu_batch(
        *("run", "--inference", "--data_dir", "prompts.json", "--examples_to_generate", 3),
        *("--max_tokens_to_generate", 4, "--pef", eager, "--checkpoint_name", "OUT/plain.pt"),
    )
    assert done.returncode == 0
    assert done.stdout == tutorial.wanted(PROMPTS[:3], max_tokens=4)


def test_prompts_that_leave_no_room_are_named_and_nothing_is_generated(
    tutorial: Tutorial, eager: str
) -> None:
    """The tutorial crops them without a word."""
    (tutorial.folder / "long.jsonl").write_text(
        "".join(json.dumps({"prompt": "x" * length}) + "\n" for length in (5, 64, 63, 65))
    )
    checkpoint = ["--checkpoint_name", "OUT/plain.pt"]
    done = tutorial.rdu_batch(
        "run", "--inference", "--data_dir", "long.jsonl", "--pef", eager, *checkpoint
    )
    assert (done.returncode, done.stdout) == (4, b"")
    said = done.stderr.decode()
    assert "long.jsonl:2: prompt_too_long: the prompt has 64 tokens, wanted at most 63" in said
    assert "long.jsonl:4: " in said
    assert "long.jsonl:3" not in said


def test_under_strict_tutorial_refusals_are_the_tutorial_s(tutorial: Tutorial, eager: str) -> None:
    """The text is whole; exit 4."""
    (tutorial.folder / "strict.json").write_text('{"prompt": "a"}')
    done = tutorial.rdu_batch(
        "run", "--inference", "--strict-tutorial", "--data_dir", "strict.json", "--pef", eager
    )
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.decode() == (
        "rdu-batch: error: Provided file 'strict.json' must have .jsonl ext and be in the jsonl "
        "format\n"
    )


@pytest.mark.parametrize(("kind", "module"), [("samba", "sambaflow"), ("rdu_engine", "rdu_engine")])
def test_missing_rdu_software_is_said_before_weights_are_bound(
    tutorial: Tutorial, eager: str, kind: str, module: str
) -> None:
    """The checkpoint may take minutes; advice names this command's own flag, and no job's."""
    run = ["--pef", eager, "--checkpoint_name", "OUT/plain.pt", "--kind", kind]
    done = tutorial.run(*run, PYTHONPATH=str(ROOT), RDU_BATCH_CACHE=str(tutorial.folder / kind))
    assert (done.returncode, done.stdout) == (8, b"")
    said = done.stderr.decode()
    assert f"No module named '{module}'" in said
    assert "--kind of `run --inference`" in said
    assert "--set" not in said
    assert not (tutorial.folder / kind).exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["--data_dir", "empty.jsonl"],
            "no prompts: --data_dir empty.jsonl holds none; nothing is",
        ),
        pytest.param(
            ["--examples_to_generate", "0"],
            "no prompts: --examples_to_generate is 0; nothing is",
            marks=pytest.mark.all_only,
        ),
    ],
)
def test_no_prompts_are_an_empty_line_and_a_word_about_why(
    tutorial: Tutorial, eager: str, words: list[str], said: str
) -> None:
    """Standard output is what the tutorial prints of an empty list; exit 0."""
    (tutorial.folder / "empty.jsonl").write_text("\n")
    done = tutorial.run("--pef", eager, "--checkpoint_name", "OUT/plain.pt", *words)
    assert (done.returncode, done.stdout) == (0, b"\n")
    assert said in done.stderr.decode()


def test_an_artifact_of_another_kind_is_refused_in_words_of_this_command(
    tutorial: Tutorial, eager: str
) -> None:
    """What to type is ``--kind``; there is no job file to change."""
    checkpoint = ["--checkpoint_name", "OUT/plain.pt"]
    done = tutorial.run("--pef", eager, *checkpoint, "--kind", "inductor")
    assert (done.returncode, done.stdout) == (8, b"")
    said = done.stderr.decode()
    assert "an artifact of kind eager, wanted inductor; use kind eager" in said
    assert "--kind of `run --inference`" in said
    assert "--set" not in said


def test_under_strict_tutorial_a_bad_line_is_named_beside_the_tutorial_s_text(
    tutorial: Tutorial, eager: str
) -> None:
    """The tutorial's text says no place; a second line on standard error does."""
    (tutorial.folder / "bad.jsonl").write_text('{"prompt": "a"}\n{"text": "b"}\n')
    done = tutorial.rdu_batch(
        "run", "--inference", "--strict-tutorial", "--data_dir", "bad.jsonl", "--pef", eager
    )
    assert (done.returncode, done.stdout) == (4, b"")
    assert done.stderr.decode().splitlines() == [
        """rdu-batch: error: JSON key "prompt" not found in example: {'text': 'b'}""",
        "rdu-batch: note: this is in bad.jsonl:2",
    ]


@pytest.mark.slow
def test_with_an_output_the_same_flags_are_a_job(tutorial: Tutorial, eager: str) -> None:
    """All rows, dead letters and a no-op rerun; the artifact with its weights is kept."""
    flags = ["--pef", eager, "--checkpoint_name", "OUT/plain.pt", "--bind_to", "OUT/bound"]
    job = ["--output", "out/job", "--executor", "inline", "--set", "input.carry=[completion]"]
    done = tutorial.run(*flags, *job)
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["predictions"] == len(PROMPTS)
    assert b"all rows are run" in done.stderr
    (part,) = (tutorial.folder / "out/job").glob("part-*")
    records = [json.loads(line) for line in part.read_text().splitlines()]
    assert {record["completion"] for record in records} == {"positive"}
    printed = tutorial.wanted(PROMPTS).decode().removesuffix("\n").split(SEPARATOR)
    # A job leaves special tokens out, and half a character where the limit cut one.
    assert [
        prompt + record["prediction"] for prompt, record in zip(PROMPTS, records, strict=True)
    ] == [
        text.removesuffix(END) if text.endswith(END) else text.rstrip("\ufffd") for text in printed
    ]
    # The job is the same without the checkpoint, as the bound artifact has its weights.
    done = tutorial.run("--pef", "OUT/bound", *job)
    assert done.returncode == 0
    assert json.loads(done.stdout.splitlines()[-1])["state"] == "already complete"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--inference", "--limit", "3"], "--limit: only with --output"),
        (["--inference", "--batch-size", "2"], "a session holds one row"),
        (["--inference", "--max_seq_length", "-1"], "was compiled for 64"),
        (["--inference", "--data_dir", ""], "--data_dir is missing"),
        (["--inference", "--no-such-flag"], "No such option"),
        (["--inference", "--no-such-flag"], "Try 'rdu-batch run --inference --help'"),
        (["--inference", "--num-tiles", "4"], "--num-tiles belongs to `rdu-batch compile`"),
        (["--inference", "-o1"], "-o0/-o1 belongs to `rdu-batch compile`"),
        (["--inference", "--kind", "samb"], "--kind: unknown kind 'samb'"),
        ([], "trains, which this program does not do"),
    ],
)
def test_a_mistake_in_the_flags_is_exit_2_and_prints_nothing(
    tutorial: Tutorial, eager: str, words: list[str], said: str
) -> None:
    """Standard output is for predictions alone."""
    done = tutorial.rdu_batch(
        *("run", "--data_dir", "data", "--pef", eager, "--checkpoint_name", "OUT/plain.pt", *words)
    )
    assert (done.returncode, done.stdout) == (2, b"")
    assert said in done.stderr.decode()
    assert "Traceback" not in done.stderr.decode()


@pytest.mark.slow
@pytest.mark.all_only
def test_the_documented_commands_in_full_size(tmp_path: Path) -> None:
    """GPT-2 small with 1024 positions; five tokens of one prompt, as each takes seconds."""
    config = json.loads((ROOT / "jobs" / "models" / "gpt2_small_config.json").read_text())
    full = make_tutorial(tmp_path, config, seed=5, scale=0.05)
    done = full.compile(
        *("--arch", "sn20", "--pef-name=inference", "--output-folder=OUT"),
        *("--num-tiles", 4, "--resources-scaling-factors", 0.8, 0.8, 0.8),
    )
    assert done.returncode == 0
    done = full.run(
        *("--checkpoint_name", "OUT/train_movie_review_checkpoint.pt"),
        *("--pef", "OUT/inference/inference.pef"),
        *("--examples_to_generate", 1, "--max_tokens_to_generate", 5),
    )
    assert done.returncode == 0
    assert done.stdout == full.wanted(PROMPTS[:1], max_tokens=5)
