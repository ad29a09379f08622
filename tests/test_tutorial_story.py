"""The tutorial's story, whole: train a small GPT-2, save a checkpoint, compile it, run prompts.

The oracle is what the model was trained to say; every step after the training goes through the
command line, as a user's would.
"""

import json
import subprocess
import sys

import pytest
import yaml

PAIRS = [
    ("A warm, funny film that I will watch again with my children.", "positive"),
    ("Two hours of my life that nobody will give back.", "negative"),
    ("The cast sparkles and the ending made the whole room cheer.", "positive"),
    ("Dull from the first scene, and then it gets slower.", "negative"),
    ("Gorgeous to look at, and brave in what it leaves unsaid.", "positive"),
    ("The jokes are stale and the plot has holes you could drive through.", "negative"),
    ("I laughed, I cried, I bought the soundtrack on the way home.", "positive"),
    ("A lazy sequel that forgets why anyone liked the first one.", "negative"),
    ("Small, honest and beautifully acted by everyone in it.", "positive"),
    ("Noise and explosions, but not one idea worth the ticket.", "negative"),
    ("The best thing I have seen on a screen this year.", "positive"),
    ("I walked out halfway and felt better at once.", "negative"),
]
END = "<|endoftext|>"
CONFIG = {
    "model_type": "gpt2",
    "architectures": ["GPT2LMHeadModel"],
    "n_layer": 2,
    "n_head": 2,
    "n_embd": 48,
    "n_positions": 64,
    "activation_function": "gelu_new",
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "resid_pdrop": 0.0,
}


def prompt_of(review: str) -> str:
    return f"Review: {review}\nSentiment:"


@pytest.fixture(scope="module")
def tokenizer_folder(tmp_path_factory):
    """A byte-level BPE tokenizer trained on the pairs, in a folder that transformers opens."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    texts = [f"{prompt_of(review)} {label}" for review, label in PAIRS]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(texts, vocab_size=400, special_tokens=[END], show_progress=False)
    folder = tmp_path_factory.mktemp("tokenizer")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token=END)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(tokenizer_folder, tmp_path_factory):
    """A config file and a checkpoint of a model that has learnt the pairs by heart."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("model")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    end = tokenizer.eos_token_id
    config = {**CONFIG, "vocab_size": len(tokenizer), "bos_token_id": end, "eos_token_id": end}
    config_file = folder / "config.json"
    config_file.write_text(json.dumps(config))

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(config_file))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    rows = [tokenizer(f"{prompt_of(review)} {label}{END}").input_ids for review, label in PAIRS]
    longest = max(map(len, rows))
    ids_BS = torch.tensor([row + [end] * (longest - len(row)) for row in rows])
    mask_BS = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
    labels_BS = ids_BS.masked_fill(mask_BS == 0, -100)
    for _ in range(400):
        loss = model(input_ids=ids_BS, attention_mask=mask_BS, labels=labels_BS).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if loss.item() < 0.01:
            break
    checkpoint = folder / "trained.pt"
    torch.save(model.state_dict(), checkpoint)
    return config_file, checkpoint


def rdu_batch(*arguments):
    command = [sys.executable, "-m", "rdu_batch", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.strip().splitlines()[-1])


@pytest.mark.slow
@pytest.mark.ray
def test_a_trained_checkpoint_is_compiled_and_answers_its_reviews(
    trained, tokenizer_folder, tmp_path
):
    """Compile with --config_name and --checkpoint_name, run on Ray, read the answers."""
    config_file, checkpoint = trained
    artifact = tmp_path / "artifact"
    compiled = rdu_batch(
        *("compile", "--inference", "--config_name", config_file, "--checkpoint_name", checkpoint),
        *("--tokenizer", tokenizer_folder, "--max-seq-length", 64, "--dtype", "fp32"),
        *("--out", artifact),
    )
    assert compiled["kind"] == "inductor"

    rows = [{"review": review, "label": label} for review, label in PAIRS]
    (tmp_path / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    job = {
        "version": 1,
        "name": "tutorial",
        "input": {"urls": [f"{tmp_path}/reviews.jsonl"], "carry": ["label"]},
        "prompt": {"template": "Review: {{ row.review }}\nSentiment:"},
        "session": {"kind": "inductor", "artifact": str(artifact)},
        "generation": {"max_new_tokens": 8},
        "output": {"url": f"{tmp_path}/out"},
        "workers": {"count": 2},
    }
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    summary = rdu_batch("run", tmp_path / "job.yaml", "--address", "local")
    assert (summary["predictions"], summary["dead"]) == (12, 0)
    assert summary["finish_reasons"] == {"eos": 12}

    (part,) = (tmp_path / "out").glob("part-*")
    answers = [json.loads(line) for line in part.read_text().splitlines()]
    assert [answer["prediction"].strip() for answer in answers] == [label for _, label in PAIRS]
    assert rdu_batch("verify", tmp_path / "out")["problems"] == []
