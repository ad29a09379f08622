"""A checkpoint as a plain transformers model, config and tokenizer.

Promises: every weight comes from the checkpoint, under its own name; a missing, unexpected or
misshapen one is an error that lists them; code from a checkpoint is never run, and pickles are read
with ``weights_only``. Does not: patch or compile.
"""

from __future__ import annotations

import io
import re
from contextlib import contextmanager, redirect_stderr
from typing import TYPE_CHECKING, Any

from rdu_batch.errors import ArtifactError, InputError
from rdu_batch.sessions.checkpoint import is_gguf
from rdu_batch.sessions.named_weights import NUM_LISTED, read_named_weights, said
from rdu_batch.sessions.samba.layout import own_layout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    import torch
    from torch import Tensor

    from rdu_batch.sessions.checkpoint import Checkpoint

#: Ends of the names of models that were made for something else.
_OTHER_TASKS = (
    *("ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification"),
    *("ForQuestionAnswering", "ForMultipleChoice", "EncoderModel"),
)

#: Masks that older releases of transformers saved beside a GPT-2's weights.
_GPT2_BUFFER = re.compile(r"(?:^|\.)h\.\d+\.attn\.(?:masked_)?bias$")


def read_config(path: Path) -> Any:
    """The transformers config of a folder, a config.json or a .gguf file.

    Raises:
        InputError: there is none, it cannot be read, or it needs code that is not transformers'.
    """
    from transformers import AutoConfig

    try:
        with _quiet_transformers():
            if is_gguf(path):
                return AutoConfig.from_pretrained(
                    path.parent, gguf_file=path.name, trust_remote_code=False
                )
            return AutoConfig.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # readers of foreign files raise all sorts
        raise InputError(
            f"{path}: no config that transformers reads: {said(error)}; {_next_step(path)}"
        ) from error


def _next_step(path: Path) -> str:
    if (path / "artifact.json").is_file():
        return "this is an artifact, compiled already: name it in session.artifact"
    return "name a folder with a config.json and weights, a .gguf file, or a model of the hub"


def check_causal(config: Any, path: Path) -> None:
    """Refuse what no causal language model is, before its weights are read.

    Raises:
        ArtifactError: it cannot be compiled, and why. Ends the command (exit 8).
    """
    names = [str(name) for name in getattr(config, "architectures", None) or []]
    others = [name for name in names if name.endswith(_OTHER_TASKS)]
    if getattr(config, "is_encoder_decoder", False):
        others = names or [f"{config.model_type}, an encoder with a decoder"]
    if others:
        raise ArtifactError(
            f"{path}: {', '.join(others)} is not a causal language model, which continues a text "
            "token by token; choose a model whose config names one, such as LlamaForCausalLM"
        )


def load_model(checkpoint: Checkpoint, config: Any, dtype: torch.dtype) -> Any:
    """The plain transformers model of a checkpoint, in ``dtype``, in eval mode.

    Args:
        checkpoint: where the weights are.
        config: as ``read_config`` gave it; read once, because reading it from GGUF takes seconds.
        dtype: the type of weights and activations; quantized GGUF weights are made plain.

    A checkpoint without weights gives a model of made-up ones, the same each time: graphs are
    traced and checked with them, and nothing else may be.

    Raises:
        InputError: the weights cannot be read, or do not fit the config.
    """
    path = checkpoint.weights_path
    if path is None:
        model = _made_up_model(config, dtype, checkpoint.config_path)
    elif path.is_file() and not is_gguf(path):
        tensors = read_named_weights(path)
        if config.model_type == "gpt2":
            # A model that was trained on an RDU saves its weights as its patch lays them.
            tensors = own_layout(tensors, config, place=str(path))
        model = build_model(config, tensors, dtype, place=str(path))
    else:
        model = _load_pretrained(path, config, dtype)
    if model.can_generate():
        # Whatever transformers found beside the weights, only what is digested counts.
        model.generation_config = _generation_config(checkpoint.generation_config_path, config)
    return model


def _made_up_model(config: Any, dtype: torch.dtype, place: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with _quiet_transformers(), torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            build: Any = AutoModelForCausalLM.from_config
            model = build(config, trust_remote_code=False)
    except Exception as error:  # a config may be wrong in ways nobody foresaw
        raise InputError(f"{place}: no model can be built of it: {said(error)}") from error
    return model.to(dtype).eval()


def _load_pretrained(path: Path, config: Any, dtype: torch.dtype) -> Any:
    """A model from a folder or a GGUF file."""
    from transformers import AutoModelForCausalLM

    place = {"gguf_file": path.name} if is_gguf(path) else {}
    try:
        with _quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path.parent if place else path,
                config=config,
                dtype=dtype,
                trust_remote_code=False,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
                **place,
            )
    except Exception as error:  # readers of foreign files raise all sorts
        raise InputError(f"{path}: transformers cannot load it: {said(error)}") from error
    model, info = loaded
    _check_loading(info, str(path), config)
    if place and hasattr(model.config, "quantization_config"):
        # It says how the file was, not how the weights are now.
        del model.config.quantization_config
    return model.eval()


def _generation_config(path: Path | None, config: Any) -> Any:
    """The generation config of a file; what the model's config says if there is none."""
    from transformers import GenerationConfig

    if path is None:
        return GenerationConfig.from_model_config(config)
    try:
        with _quiet_transformers():
            return GenerationConfig.from_pretrained(path.parent, config_file_name=path.name)
    except Exception as error:  # readers of foreign files raise all sorts
        raise InputError(
            f"{path}: no generation config that transformers reads: {said(error)}"
        ) from error


def build_model(
    config: Any, tensors: Mapping[str, Tensor], dtype: torch.dtype, *, place: str = "weights"
) -> Any:
    """A plain transformers model over given tensors, by name; no copy where the type fits.

    Args:
        config: a transformers config.
        tensors: weights under the checkpoint's names; tied ones may be left out.
        dtype: the type of weights and activations.
        place: where the tensors come from, for messages.

    Raises:
        InputError: tensors are missing, unexpected or misshapen, or the config is of no causal LM.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise InputError(
            f"config of type {config.model_type}: transformers has no causal language model for it"
        )
    model_class: Any = MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    try:
        with _quiet_transformers():
            model, info = model_class.from_pretrained(
                None,
                config=config,
                state_dict=dict(tensors),
                dtype=dtype,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception as error:  # a config may be wrong in ways nobody foresaw
        # transformers stumbles over some wrong shapes that it would otherwise report.
        mismatched = _mismatched(model_class, config, tensors)
        if mismatched:
            found: dict[str, Any] = {"missing_keys": [], "unexpected_keys": []}
            _check_loading({**found, "mismatched_keys": mismatched}, place, config)
        raise InputError(f"{place}: does not fit the config: {said(error)}") from error
    _check_loading(info, place, config)
    return model.eval()


def _mismatched(
    model_class: Any, config: Any, tensors: Mapping[str, Tensor]
) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Tensors of other shapes than the config's: name, found and wanted shape."""
    import torch

    try:
        with _quiet_transformers(), torch.device("meta"):
            model = model_class(config)
    except Exception:  # noqa: BLE001 - the caller has an error to raise, which says more
        return []
    wanted = {name: tuple(one.shape) for name, one in model.state_dict().items()}
    # A checkpoint of the model without its head has names without the model's own prefix.
    prefix = f"{model.base_model_prefix}."
    found = {
        name if name in wanted else prefix + name: tuple(one.shape) for name, one in tensors.items()
    }
    return [
        (name, shape, wanted[name])
        for name, shape in found.items()
        if name in wanted and wanted[name] != shape
    ]


def save_tokenizer(checkpoint: Checkpoint, folder: Path) -> None:
    """Write the checkpoint's tokenizer and chat template to ``folder`` in transformers' format.

    Raises:
        InputError: there is none, it has no tokens, or it has no tokenizer.json form.
    """
    from transformers import AutoTokenizer

    path = checkpoint.tokenizer_path
    try:
        with _quiet_transformers():
            if is_gguf(path):
                tokenizer = AutoTokenizer.from_pretrained(
                    path.parent, gguf_file=path.name, trust_remote_code=False
                )
            else:
                tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
            tokenizer.save_pretrained(folder)
    except Exception as error:  # readers of foreign files raise all sorts
        raise InputError(
            f"{path}: no tokenizer that transformers reads: {said(error)}; name one with "
            "--tokenizer"
        ) from error
    # transformers makes one of nothing but special tokens where a config names its class.
    if len(tokenizer.get_vocab()) <= len(tokenizer.all_special_tokens):
        raise InputError(
            f"{path}: there is no tokenizer in it, only a config that names one; name another "
            "place with --tokenizer"
        )
    if not (folder / "tokenizer.json").is_file():
        raise InputError(f"{path}: its tokenizer has no tokenizer.json form; name another one")


def _check_loading(info: Mapping[str, Any], place: str, config: Any) -> None:
    """Refuse a model with any weight that is not the checkpoint's."""
    missing = sorted(info["missing_keys"])
    unexpected = sorted(
        name
        for name in info["unexpected_keys"]
        if not (config.model_type == "gpt2" and _GPT2_BUFFER.search(name))
    )
    misshapen = [
        f"{name} is {list(found)}, the config wants {list(wanted)}"
        for name, found, wanted in sorted(info["mismatched_keys"])
    ]
    if not missing and not unexpected and not misshapen and not info.get("error_msgs"):
        return
    lines = [f"{place}: the weights do not fit the config; nothing was filled with random numbers"]
    for title, names in (
        ("missing", missing),
        ("unexpected", unexpected),
        ("wrong shape", misshapen),
        ("error", list(info.get("error_msgs", ()))),
    ):
        lines += [f"  {title}: {name}" for name in names[:NUM_LISTED]]
        if len(names) > NUM_LISTED:
            lines.append(f"  {title}: and {len(names) - NUM_LISTED} more")
    lines.append("use the config this checkpoint was made with, or correct the names")
    raise InputError("\n".join(lines))


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No progress bars and no reports: what matters is raised as an error here."""
    import transformers

    logging: Any = transformers.utils.logging

    verbosity = logging.get_verbosity()
    bars = logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        # The reader of GGUF files draws a bar of its own, which has no switch.
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
