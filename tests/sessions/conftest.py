"""Tiny tokenizers and artifacts, made on the spot; played-back and greedy tokens to compare."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rdu_batch import errors
from rdu_batch.sessions.artifact import Artifact, LocalArtifact, Target
from rdu_batch.sessions.artifact_store import folder_entries
from rdu_batch.sessions.door import SessionInfo, Step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rdu_batch.sessions.door import Session

ROOT = Path(__file__).parents[2]
CORPUS = [
    "The quick brown fox jumps over the lazy dog. Grüße aus Köln, café, naïve.",
    "one two three four five six seven eight nine ten\n\nuser: hello\nassistant: hi there",
    "日本語 のテキスト 你好 世界 \U0001f600 \U0001f680",
] * 5
SPECIAL_TOKENS = ["<|bos|>", "<|eos|>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'robot' %}"
    "{{ raise_exception('robots are not welcome') }}{% endif %}"
    "<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

#: Where the two best logits are nearer than this, another order of sums may pick the other one.
TIE_DISTANCE = 1e-4

#: Last of the tiny models' vocabulary.
POISON_ID = 447

#: Options of ``compile`` for the graphs of kind samba.
SAMBA_GRAPHS = {
    "samba": (),
    "samba_cached": ("--graphs", "cached", "--prefill_lengths", "8,16,48"),
}


@dataclass
class ScriptedSession:
    """Stands behind the door and says ``script``; notes what it was asked."""

    script: Sequence[int]
    info: SessionInfo
    calls: list[tuple[Any, ...]] = field(default_factory=list)

    def prefill(self, input_ids_1S: Sequence[int], *, want_logits: bool = False) -> Step:
        self.calls.append(("prefill", tuple(input_ids_1S), want_logits))
        return Step(self.script[0])

    def decode(self, token_id: int, position: int, *, want_logits: bool = False) -> Step:
        self.calls.append(("decode", token_id, position, want_logits))
        return Step(self.script[len(self.calls) - 1])

    def reset(self) -> None:
        self.calls.clear()

    def close(self) -> None:
        pass


@pytest.fixture(scope="session")
def scripted() -> Callable[..., ScriptedSession]:
    """Makes a session that says what it is given."""

    def make(
        script: Sequence[int], *, max_seq_length: int = 4096, vocab_size: int = 1 << 20
    ) -> ScriptedSession:
        return ScriptedSession(
            script, SessionInfo("scripted", max_seq_length, 1, vocab_size, "fp32", 1)
        )

    return make


def _byte_level_tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=SPECIAL_TOKENS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<|bos|> $A", special_tokens=[("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
    )
    return tokenizer


def _byte_fallback_tokenizer() -> Any:
    """As Llama 2's: characters it does not know are runs of byte tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    pieces = [*SPECIAL_TOKENS, "<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["▁", *"abcdefghijklmnopqrstuvwxyz.:", "▁t", "▁th", "▁the", "he", "lo"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("h", "e"), ("l", "o")]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return tokenizer


@pytest.fixture(scope="session")
def save_tokenizer() -> Callable[..., None]:
    """Writes a tokenizer (``byte_level`` or ``byte_fallback``) into a folder."""
    from transformers import PreTrainedTokenizerFast

    makers = {"byte_level": _byte_level_tokenizer, "byte_fallback": _byte_fallback_tokenizer}

    def save(folder: Path, style: str = "byte_level", chat_template: str | None = None) -> None:
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=makers[style](), bos_token="<|bos|>", eos_token="<|eos|>"
        )
        tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL_TOKENS[2:]})
        tokenizer.chat_template = chat_template
        tokenizer.save_pretrained(folder)

    return save


@pytest.fixture(scope="session")
def artifact_of() -> Callable[..., LocalArtifact]:
    """Describes whatever lies in a folder as an artifact."""

    def describe(folder: Path, *, kind: str = "inductor", **changes: Any) -> LocalArtifact:
        values: dict[str, Any] = {
            "kind": kind,
            "dtype": "fp32",
            "max_seq_length": 64,
            "prefill_chunk": 16,
            "cache_length": 80,
            "vocab_size": 512,
            "num_layers": 1,
            "num_kv_heads": 1,
            "head_size": 8,
            "threads": None,
            "model_family": "llama",
            "model_digest": "sha256:0",
            "settings_digest": "sha256:0",
            "target": Target(),
            "files": folder_entries(folder),
            "url": str(folder),
        }
        return LocalArtifact(folder, Artifact(**values | changes))

    return describe


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, save_tokenizer: Callable[..., None]
) -> Callable[[str], Path]:
    """Writes a tiny model of random weights (``llama`` or ``gpt2``), once each."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        if family in made:
            return made[family]
        import torch
        from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

        torch.manual_seed(7)
        if family == "llama":
            config = LlamaConfig(
                vocab_size=448,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=64,
                bos_token_id=0,
                eos_token_id=1,
                initializer_range=0.3,
            )
            model = LlamaForCausalLM(config)
        else:
            model = GPT2LMHeadModel(
                GPT2Config(
                    vocab_size=448,
                    n_embd=64,
                    n_layer=2,
                    n_head=4,
                    n_positions=64,
                    bos_token_id=0,
                    eos_token_id=1,
                    initializer_range=0.3,
                )
            )
        made[family] = tmp_path_factory.mktemp(family)
        model.save_pretrained(made[family])
        save_tokenizer(made[family], "byte_level", CHAT_TEMPLATE)
        return made[family]

    return make


class OwnProcessSession:
    """A session in a process of its own, over the stand-ins for an RDU's runtimes.

    What it raises there is raised here: this program's errors, and ValueError.
    """

    def __init__(
        self, local: LocalArtifact, environment: Mapping[str, str], kind: str = "samba"
    ) -> None:
        self.process = subprocess.Popen(
            [
                *(sys.executable, str(Path(__file__).parent / "samba" / "session_process.py")),
                *(kind, str(local.folder), "1"),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=dict(environment),
        )
        try:
            self.info: SessionInfo = self._answer()
        except BaseException:
            self.end()
            raise

    def __getattr__(self, name: str) -> Any:
        return lambda *arguments, **keywords: self._call(name, arguments, keywords)

    def end(self) -> None:
        """End the process by closing its input."""
        if self.process.stdin is not None:
            self.process.stdin.close()
        self.process.wait(timeout=60)
        if self.process.stdout is not None:
            self.process.stdout.close()

    def _call(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        pickle.dump((name, arguments, keywords), self.process.stdin)
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        error, result = pickle.load(self.process.stdout)  # noqa: S301 - our own child's
        if error is None:
            return result
        if error == "RowError":
            raise errors.RowError(*result.split(": ", 1))
        raise getattr(errors, error, {"ValueError": ValueError}.get(error, RuntimeError))(result)


@pytest.fixture(scope="session")
def prompt_of() -> Callable[[int], list[int]]:
    """Makes a prompt for the tiny models of so many token ids, ``poison_id`` not among them."""
    return lambda length: [
        (37 * index * index + 11 * index + 5) % POISON_ID for index in range(length)
    ]


@pytest.fixture(scope="session")
def poison_id() -> int:
    """A token that neither prompts nor greedy answers of the tiny GPT-2 hold."""
    return POISON_ID


@pytest.fixture(scope="session")
def greedy() -> Callable[[Any, list[int], int], list[int]]:
    """Tokens that a session generates after a prompt, each the likeliest."""

    def generate(session: Any, prompt_ids: list[int], num_tokens: int) -> list[int]:
        step = session.prefill(prompt_ids)
        ids = [step.token_id]
        for position in range(len(prompt_ids), len(prompt_ids) + num_tokens - 1):
            ids.append(session.decode(ids[-1], position).token_id)
        return ids

    return generate


@pytest.fixture(scope="session")
def assert_same_greedy_tokens() -> Callable[..., int]:
    """Compares a session with transformers' ``generate``; gives back the number of ties met."""
    import torch

    def compare(session: Session, plain: Any, prompts: list[list[int]], num_tokens: int) -> int:
        num_ties = 0
        for ids in prompts:
            found = plain.generate(
                torch.tensor([ids]),
                attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                max_new_tokens=num_tokens,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=0,
                output_logits=True,
                return_dict_in_generate=True,
            )
            wanted = found.sequences[0, len(ids) :].tolist()
            step = session.prefill(ids)
            for index, token_id in enumerate(wanted):
                best = found.logits[index][0].topk(2).values
                if float(best[0] - best[1]) < TIE_DISTANCE:
                    num_ties += 1
                    break
                assert step.token_id == token_id, (ids, index)
                if index + 1 < len(wanted):
                    step = session.decode(token_id, len(ids) + index)
        print(f"{len(prompts)} prompts of {num_tokens} tokens, {num_ties} cut at a tie")  # noqa: T201
        return num_ties

    return compare


@pytest.fixture(scope="session")
def stand_in_environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a process that finds the stand-ins where it looks for an RDU's runtimes."""
    path = os.pathsep.join([str(ROOT / "tests" / "stand_ins"), str(ROOT)])
    cache = str(tmp_path_factory.mktemp("cache"))
    return {**os.environ, "PYTHONPATH": path, "RDU_BATCH_CACHE": cache}


@pytest.fixture(scope="session")
def compile_on_stand_in(stand_in_environment: dict[str, str]) -> Callable[..., None]:
    """Compiles a checkpoint for kind samba, fp32, in a process of its own."""

    def compile_it(checkpoint: Path, url: str, *arguments: str) -> None:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "rdu_batch", "compile", str(checkpoint), "--out", url),
                *("--kind", "samba", "--dtype", "fp32", "--max_seq_length", "48", *arguments),
            ],
            env=stand_in_environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    return compile_it


@pytest.fixture(scope="session")
def open_on_stand_in(
    stand_in_environment: dict[str, str],
) -> Iterator[Callable[..., OwnProcessSession]]:
    """Opens a session in a process of its own; each ends with the tests at the latest."""
    opened: list[OwnProcessSession] = []

    def open_it(
        local: LocalArtifact, *, kind: str = "samba", **environment: str
    ) -> OwnProcessSession:
        opened.append(OwnProcessSession(local, {**stand_in_environment, **environment}, kind))
        return opened[-1]

    yield open_it
    for session in opened:
        session.end()


@pytest.fixture(scope="session")
def tiny_artifact(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_checkpoint: Callable[[str], Path],
    compile_on_stand_in: Callable[..., None],
) -> Callable[..., LocalArtifact]:
    """Compiles a tiny model to an fp32 artifact of a kind, once each.

    ``samba_cached`` is kind samba with a key/value cache.
    """
    made: dict[tuple[str, str], LocalArtifact] = {}

    def make(kind: str, family: str) -> LocalArtifact:
        if (kind, family) not in made:
            from rdu_batch.sessions.artifact_store import fetch_artifact
            from rdu_batch.sessions.checkpoint import ModelSource
            from rdu_batch.sessions.compile import compile_artifact
            from rdu_batch.sessions.compile_settings import CompileSettings

            url = str(tmp_path_factory.mktemp(f"{kind}_{family}") / "artifact")
            if kind in SAMBA_GRAPHS:
                compile_on_stand_in(tiny_checkpoint(family), url, *SAMBA_GRAPHS[kind])
            else:
                compile_artifact(
                    ModelSource(model_name_or_path=str(tiny_checkpoint(family))),
                    url,
                    CompileSettings(kind=kind, dtype="fp32", max_seq_length=48, prefill_chunk=16),
                )
            made[kind, family] = fetch_artifact(url)
        return made[kind, family]

    return make


@pytest.fixture
def tokenizer_artifact(
    tmp_path: Path, save_tokenizer: Callable[..., None], artifact_of: Callable[..., LocalArtifact]
) -> Callable[..., LocalArtifact]:
    """Makes an artifact that holds a tokenizer and the given JSON files."""

    def make(
        style: str = "byte_level", chat_template: str | None = None, **files: Any
    ) -> LocalArtifact:
        save_tokenizer(tmp_path, style, chat_template)
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return artifact_of(tmp_path)

    return make


@pytest.fixture
def chat_template() -> str:
    """A template as instruct models have them; it writes its own bos and refuses robots."""
    return CHAT_TEMPLATE


@pytest.fixture
def tiny_gguf() -> Callable[[Path], Path]:
    """Writes a GGUF file of a Llama's metadata and a tokenizer of six tokens, without weights."""

    def write(path: Path) -> Path:
        from gguf import GGUFWriter

        writer = GGUFWriter(str(path), "llama")
        writer.add_block_count(1)
        writer.add_context_length(64)
        writer.add_embedding_length(32)
        writer.add_feed_forward_length(64)
        writer.add_head_count(4)
        writer.add_head_count_kv(2)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_rope_freq_base(10000.0)
        writer.add_vocab_size(6)
        writer.add_tokenizer_model("gpt2")
        writer.add_token_list(["<s>", "</s>", "a", "b", "c", "ab"])
        writer.add_token_types([3, 3, 1, 1, 1, 1])
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path

    return write
