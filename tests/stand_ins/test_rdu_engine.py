"""The stand-in of `rdu_engine`: the right program passes, and each wrong one breaks a contract."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch


@pytest.fixture(scope="module")
def compiled_pef(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The PEF of two graphs, once it is made; exporting its graphs takes a second."""
    return [str(tmp_path_factory.mktemp("pef"))]


@pytest.fixture
def pef(_stand_in: None, compiled_pef: list[str], forget_modules: Any) -> str:
    """A PEF of both graphs, compiled as if in another process."""
    if len(compiled_pef) == 1:
        two = importlib.import_module("multigraph_program")
        compiled_pef.append(two.compiled_pef(compiled_pef[0]))
        forget_modules()
    return compiled_pef[1]


@pytest.fixture
def engine(pef: str) -> ModuleType:
    """The right program, with nothing opened."""
    return importlib.import_module("engine_program")


@pytest.fixture
def reference(engine: ModuleType) -> Any:
    """The compiled program's own reference: a plain model without a cache."""
    return importlib.import_module("multigraph_program")


@pytest.fixture
def checkpoint(engine: ModuleType, reference: Any, tmp_path: Path) -> str:
    """The reference's weights in a folder."""
    return engine.save_checkpoint(tmp_path / "weights", engine.weights_of(reference.tiny_model()))


@pytest.fixture
def running(engine: ModuleType, pef: str, checkpoint: str) -> Any:
    """The right program with its PEF and checkpoint."""
    return engine.Running(pef, checkpoint)


def traffic() -> Any:
    return importlib.import_module("sambaflow.stand_in").TRAFFIC


def test_a_cached_decode_gives_the_logits_of_the_whole_sequence(
    running: Any, reference: Any
) -> None:
    """Prefill, then steps to the end of the cache; a new prompt starts anew."""
    for prompt in ([3, 1, 4], [7, 7]):
        tokens = list(prompt)
        logits_V = running.prefill(tokens)
        while True:
            torch.testing.assert_close(logits_V, reference.reference_logits_V(tokens))
            if len(tokens) == reference.MAX_LENGTH:
                break
            tokens.append(int(logits_V.argmax()))
            logits_V = running.decode(tokens[-1], len(tokens) - 1)


def test_the_engine_runs_without_what_compiles(pef: str, checkpoint: str) -> None:
    """Another process opens, loads and runs the PEF; it imports no `sambaflow.samba`."""
    code = (
        "import sys, engine_program\n"
        "engine_program.Running(*sys.argv[1:]).prefill([3, 1, 4])\n"
        "print('sambaflow.samba' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, pef, checkpoint],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout == "False\n", done.stderr


def test_only_one_positions_logits_reach_the_host(running: Any, engine: ModuleType) -> None:
    """An output that is not asked for stays on the device, and the cache always does."""
    running.prefill([3, 1, 4])
    running.run(engine.DECODE, engine.decode_inputs(5, 3))
    assert traffic().bytes_to_host == 20 * 4


def test_a_single_graphs_pef_is_refused(
    engine: ModuleType, tmp_path: Path, forget_modules: Any
) -> None:
    """As the stand-in has no schedules for it; what the engine does is not public."""
    single = importlib.import_module("tutorial_program").compiled_pef(tmp_path / "out")
    rdu_engine = engine.rdu_engine
    for refused in (rdu_engine.PEF, rdu_engine.get_checkpoint_spec):
        with pytest.raises(RuntimeError, match=r"PEF mismatch.*one graph"):
            refused(single)


def test_a_pef_is_whole(engine: ModuleType, pef: str, tmp_path: Path) -> None:
    """Cut short, or not there."""
    cut = tmp_path / "cut.pef"
    cut.write_bytes(Path(pef).read_bytes()[:-9])
    for path in (cut, tmp_path / "none.pef"):
        with pytest.raises(RuntimeError, match="PEF file"):
            engine.rdu_engine.PEF(str(path))


def test_a_pef_for_another_runtime_is_not_opened(
    engine: ModuleType, pef: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The version is the compiling SambaFlow's."""
    monkeypatch.setenv("SAMBAFLOW_STAND_IN_RUNTIME_VERSION", "9.9.9")
    with pytest.raises(RuntimeError, match="PEF version mismatch"):
        engine.rdu_engine.PEF(pef)


def test_a_checkpoint_holds_what_the_pef_asks_for(
    running: Any, engine: ModuleType, reference: Any, pef: str, tmp_path: Path
) -> None:
    """The spec names each weight; a missing, misshapen or otherwise typed one is refused."""
    weights = engine.weights_of(reference.tiny_model())
    spec = engine.rdu_engine.get_checkpoint_spec(pef)
    assert {name: one["shape"] for name, one in spec.items()} == {
        name: list(one.shape) for name, one in weights.items()
    }
    assert {one["dtype"] for one in spec.values()} == {"TENSOR_DTYPE_FP32"}
    wrong = {
        "missing weight symbols: .'wpe__weight'": {
            name: one for name, one in weights.items() if name != "wpe__weight"
        },
        r"shape \(20, 8\) does not match.*\(24, 8\)": {
            **weights,
            "qkv__weight": torch.zeros(20, 8),
        },
        "dtype TENSOR_DTYPE_BF16 does not match": {
            name: one.bfloat16() for name, one in weights.items()
        },
    }
    for number, (said, tensors) in enumerate(wrong.items()):
        folder = engine.save_checkpoint(tmp_path / f"wrong_{number}", tensors)
        with pytest.raises(RuntimeError, match=rf"checkpoint of the PEF.*{said}"):
            running.pef.load_checkpoint(folder)
    extra = engine.save_checkpoint(tmp_path / "extra", {**weights, "odd": torch.zeros(1)})
    running.pef.load_checkpoint(extra)


def test_a_checkpoint_may_lie_in_several_files(
    running: Any, engine: ModuleType, reference: Any, tmp_path: Path
) -> None:
    """Its index names them."""
    weights = engine.weights_of(reference.tiny_model())
    names = sorted(weights)
    shards = {"one.safetensors": names[:2], "two.safetensors": names[2:]}
    for file, held in shards.items():
        engine.save_file({name: weights[name] for name in held}, tmp_path / file)
    index = {"weight_map": {name: file for file, held in shards.items() for name in held}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    running.checkpoint = running.pef.load_checkpoint(str(tmp_path))
    torch.testing.assert_close(running.prefill([5, 2]), reference.reference_logits_V([5, 2]))


def test_a_checkpoint_is_a_folder_of_safetensors(running: Any, tmp_path: Path) -> None:
    """No path, no file in it, or a file of something else."""
    for folder in ("", str(tmp_path)):
        with pytest.raises(RuntimeError, match="checkpoint of the PEF"):
            running.pef.load_checkpoint(folder)
    (tmp_path / "model.safetensors").write_bytes(b"odd")
    with pytest.raises(RuntimeError, match=r"checkpoint of the PEF.*Failed to load"):
        running.pef.load_checkpoint(str(tmp_path))


def test_a_pef_has_several_checkpoints_each_with_its_own_cache(
    running: Any, engine: ModuleType, reference: Any, pef: str, tmp_path: Path
) -> None:
    """One row on each, step by step in turn."""
    doubled = {name: 2 * one for name, one in engine.weights_of(reference.tiny_model()).items()}
    other = running.pef.load_checkpoint(engine.save_checkpoint(tmp_path / "other", doubled))
    first_V = running.prefill([3, 1, 4])
    own, running.checkpoint = running.checkpoint, other
    other_V = running.prefill([7, 7])
    assert not torch.allclose(other_V, reference.reference_logits_V([7, 7]))
    running.checkpoint = own
    token = int(first_V.argmax())
    torch.testing.assert_close(
        running.decode(token, 3), reference.reference_logits_V([3, 1, 4, token])
    )


def test_a_checkpoint_belongs_to_its_pef(running: Any, pef: str, checkpoint: str) -> None:
    """The same file opened twice is two PEFs."""
    other = running.pef.__class__(pef).load_checkpoint(checkpoint)
    running.checkpoint = other
    with pytest.raises(RuntimeError, match=r"checkpoint of the PEF.*different MLApp"):
        running.prefill([3, 1, 4])


def test_a_schedule_is_in_the_pef(running: Any, engine: ModuleType) -> None:
    """Names are exact."""
    assert running.pef.get_schedules() == {engine.PREFILL, engine.DECODE}
    with pytest.raises(RuntimeError, match=r"graphs of the PEF.*Unknown schedule"):
        running.run("model_cache_11_fwd", engine.decode_inputs(5, 3))


def test_inputs_have_the_names_of_their_schedule(running: Any, engine: ModuleType) -> None:
    """The decode's ids are no input of the prefill."""
    wrong = {**engine.prefill_inputs([3]), engine.DECODE_IDS: torch.zeros(1, 1).int()}
    with pytest.raises(RuntimeError, match=r"names of inputs.*does not have a tensor"):
        running.run(engine.PREFILL, wrong)


@pytest.mark.parametrize(
    ("said", "wrong"),
    [
        ("exact dtypes.*PyTorch tensor dtype does not match", torch.tensor([[5]])),
        ("exact shapes", torch.tensor([5], dtype=torch.int32)),
        ("exact shapes", torch.tensor([[5, 5]], dtype=torch.int32)),
        ("inputs are plain torch tensors", [[5]]),
    ],
)
def test_an_input_has_its_type_shape_and_dtype(
    running: Any, engine: ModuleType, said: str, wrong: Any
) -> None:
    """Nothing is converted."""
    running.prefill([3, 1, 4])
    with pytest.raises(RuntimeError, match=said):
        running.decode(5, 3, **{engine.DECODE_IDS: wrong})


def test_an_input_is_contiguous(running: Any, engine: ModuleType) -> None:
    """The engine is given addresses."""
    wide = torch.zeros(1, 2 * engine.MAX_LENGTH, dtype=torch.int32)
    wide[:, : 2 * 4] = 1
    running.prefill([3, 1, 4])
    with pytest.raises(RuntimeError, match=r"plain torch tensors.*contiguous"):
        running.decode(5, 3, **{engine.MASK: wide[:, ::2]})


def test_what_is_not_given_stays_as_it_is_on_the_device(
    running: Any, engine: ModuleType, reference: Any
) -> None:
    """The cache, always; the index too, though not what was never written."""
    inputs = engine.decode_inputs(5, 3)
    with pytest.raises(RuntimeError, match=r"regions between graphs.*uninitialized inputs"):
        running.run(engine.DECODE, inputs)
    running.prefill([3, 1, 4])
    wanted_V = running.decode(5, 3)
    del inputs[engine.INDEX]
    again_V = running.logits(engine.DECODE, inputs)
    torch.testing.assert_close(again_V, wanted_V)
    torch.testing.assert_close(wanted_V, reference.reference_logits_V([3, 1, 4, 5]))


@pytest.mark.parametrize(
    ("said", "token_index"),
    [("no step past the compiled length.*capped at 9", 10), ("regions between graphs", 5)],
)
def test_an_index_follows_the_cache_and_stays_inside(
    running: Any, said: str, token_index: int
) -> None:
    """Past the end a scatter is undefined, and a cache has no holes."""
    running.prefill([3, 1, 4])
    with pytest.raises(RuntimeError, match=said):
        running.decode(5, token_index)


def test_a_prompt_fits_its_static_length(running: Any, engine: ModuleType) -> None:
    """Its index lies inside."""
    inputs = engine.prefill_inputs([3] * 6)
    inputs[engine.INDEX] += 1
    with pytest.raises(RuntimeError, match=r"no step past the compiled length.*0 to 5"):
        running.run(engine.PREFILL, inputs)


def test_a_decode_mask_is_right_padded(running: Any, engine: ModuleType) -> None:
    """Ones to the index, zeros after."""
    running.prefill([3, 1, 4])
    mask = engine.decode_inputs(5, 3)[engine.MASK].flip(-1)
    with pytest.raises(RuntimeError, match="right padding in the mask"):
        running.decode(5, 3, **{engine.MASK: mask})


def test_an_output_is_overwritten_by_the_next_run(running: Any, engine: ModuleType) -> None:
    """With reuse_outputs its memory is the engine's; without, it is the program's."""
    for reuse, is_kept in ((True, False), (False, True)):
        held = running.run(
            engine.PREFILL, engine.prefill_inputs([3, 1, 4]), reuse_outputs=reuse
        ).get_tensor(engine.LOGITS)
        assert held.isfinite().all()
        running.decode(5, 3)
        assert bool(held.isfinite().all()) is is_kept
        assert bool(held.isnan().all()) is not is_kept


def test_a_result_is_read_before_the_next_run(running: Any, engine: ModuleType) -> None:
    """An older one is invalid; by index and in turn, outputs come in the schedule's order."""
    output = running.run(engine.PREFILL, engine.prefill_inputs([3, 1, 4]))
    assert torch.equal(output[0], output.get_tensor(engine.LOGITS))
    assert len(list(output)) == 3
    with pytest.raises(RuntimeError, match=r"names of inputs.*'logits'"):
        output.get_tensor("logit")
    running.decode(5, 3)
    with pytest.raises(RuntimeError, match=r"ModelOutput was invalidated"):
        output.get_tensor(engine.LOGITS)


def test_a_prefill_sees_other_padding_in_each_run(running: Any, engine: ModuleType) -> None:
    """So a graph that looked at it would differ from run to run; the cache's padding does."""
    padding = []
    for _ in range(2):
        output = running.run(engine.PREFILL, engine.prefill_inputs([3, 1, 4]))
        logits, keys_1MD, _ = (one.clone() for one in output)
        padding.append((logits, keys_1MD[:, :3], keys_1MD[:, 3 : engine.PREFILL_LENGTH]))
    (logits, real, behind), (other_logits, other_real, other_behind) = padding
    assert logits.equal(other_logits)
    assert real.equal(other_real)
    assert not behind.equal(other_behind)


def inject(monkeypatch: pytest.MonkeyPatch, *faults: dict[str, Any]) -> None:
    """Tell the stand-in of faults; the variable is that of the stand-in of `sambaflow`."""
    monkeypatch.setenv("SAMBAFLOW_STAND_IN_FAULTS", json.dumps(faults))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("hw_exception", "HwException"),
        ("tile_fault", "TileFaultException"),
        ("dram_ue", "DramUeException"),
        ("scratchpad_ue", "ScratchpadUeException"),
        ("d2d_ue", "D2dUeException"),
    ],
)
def test_a_broken_device_stays_broken(
    running: Any, engine: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: str, name: str
) -> None:
    """The exception has its documented name, comes at its run, and at each run after."""
    inject(monkeypatch, {"kind": kind, "at_run": 2})
    running.prefill([3, 1, 4])
    for _ in range(2):
        with pytest.raises(getattr(engine.rdu_engine, name), match=f"injected {kind} at run 2"):
            running.decode(5, 3)


def test_a_prompt_can_be_poison_and_the_next_is_sound(
    running: Any, engine: ModuleType, reference: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NumericalException belongs to its input; padding is not looked at."""
    inject(monkeypatch, {"kind": "numerical", "token_id": 13}, {"kind": "numerical", "token_id": 0})
    with pytest.raises(engine.rdu_engine.NumericalException):
        running.prefill([5, 13, 2])
    torch.testing.assert_close(running.prefill([5, 2]), reference.reference_logits_V([5, 2]))


def test_a_forked_process_cannot_use_the_engine(running: Any) -> None:
    """The check comes before anything is computed."""
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        try:
            running.prefill([3, 1, 4])
        except RuntimeError as error:
            os._exit(0 if "no fork after the session" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_one_thread_runs_at_a_time(running: Any) -> None:
    """A second run meanwhile is refused."""
    held = importlib.import_module("rdu_engine.stand_in.engine").ENGINE.one_run()
    said: list[str] = []

    def run() -> None:
        try:
            running.prefill([3, 1, 4])
        except RuntimeError as error:
            said.append(str(error))

    with held:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)
    assert len(said) == 1
    assert "one run at a time" in said[0]


def test_a_tile_has_one_owner(
    engine: ModuleType, pef: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two PEFs of one process share its tiles; a host with too few has none for it."""
    for count, fits in ((4, True), (3, False)):
        table = {"folder": str(tmp_path / f"tiles_{count}"), "count": count}
        monkeypatch.setenv("SAMBAFLOW_STAND_IN_TILES", json.dumps(table))
        if fits:
            engine.rdu_engine.PEF(pef)
            engine.rdu_engine.PEF(pef)
            importlib.import_module("rdu_engine.stand_in.engine").ENGINE.release_tiles()
        else:
            with pytest.raises(RuntimeError, match="no free tiles"):
                engine.rdu_engine.PEF(pef)
