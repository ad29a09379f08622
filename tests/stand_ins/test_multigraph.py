"""Several graphs in one PEF: names, shared regions, and a cache that lives on the device."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch


@pytest.fixture
def two_pef(_stand_in: None, tmp_path: Path, forget_modules: Any) -> str:
    """A PEF of both graphs, compiled as if in another process."""
    pef = importlib.import_module("multigraph_program").compiled_pef(tmp_path)
    forget_modules()
    return pef


@pytest.fixture
def two(two_pef: str) -> ModuleType:
    """The right program, set up and not yet started."""
    program = importlib.import_module("multigraph_program")
    program.samba.session.setup(SimpleNamespace(pef=two_pef))
    return program


@pytest.fixture
def running(two: ModuleType, two_pef: str) -> ModuleType:
    """The right program with its session."""
    two.start(two_pef)
    return two


def int32(*values: Any) -> torch.Tensor:
    """A tensor of one row."""
    return torch.tensor([values], dtype=torch.int32)


def test_a_cached_decode_gives_the_logits_of_the_whole_sequence(running: ModuleType) -> None:
    """Prefill, then steps: each as a model without a cache; a new prompt starts anew."""
    for prompt in (running.PROMPT, [7, 7]):
        tokens = list(prompt)
        logits_V = running.prefill(tokens)
        while True:
            torch.testing.assert_close(logits_V, running.reference_logits_V(tokens))
            if len(tokens) == running.MAX_LENGTH:
                break
            tokens.append(int(logits_V.argmax()))
            logits_V = running.decode(tokens[-1], len(tokens) - 1)


def sees_padding(program: ModuleType) -> None:
    """Make the program's model a wrong one, whose prefill attends to all positions."""
    right = program.TinyModel._logits

    def wrong(model: Any, q: Any, k: Any, v: Any, seen: Any, hidden: Any) -> torch.Tensor:
        return right(model, q, k, v, torch.ones_like(seen), hidden)

    program.TinyModel._logits = wrong


@pytest.mark.parametrize(("change", "is_right"), [(None, True), (sees_padding, False)])
def test_a_prefill_that_looks_at_its_padding_differs_from_run_to_run(
    tmp_path: Path, forget_modules: Any, change: Any, is_right: bool
) -> None:
    """The padding holds other tokens each time; the right model does not see it."""
    program = importlib.import_module("multigraph_program")
    if change:
        change(program)
    pef = program.compiled_pef(tmp_path)
    forget_modules()
    program = importlib.import_module("multigraph_program")
    if change:
        change(program)
    program.start(pef)
    first, again = (program.prefill(program.PROMPT) for _ in range(2))
    assert first.equal(again) is is_right


def test_only_one_positions_logits_reach_the_host(running: ModuleType) -> None:
    """The cache stays on the device: a step returns one row of logits."""
    traffic = importlib.import_module("sambaflow.stand_in").TRAFFIC
    running.prefill(running.PROMPT)
    running.decode(5, 3)
    assert traffic.bytes_to_host == 2 * running.VOCAB_SIZE * 4
    assert traffic.bytes_to_device == 4 * (running.PREFILL_LENGTH + 1) + 4 * (
        1 + running.MAX_LENGTH + 1
    )


def test_a_graph_is_in_the_pef(running: ModuleType) -> None:
    """Another name, or none, is refused."""
    for name in ("model_cache_11_fwd", None):
        with pytest.raises(RuntimeError, match="graphs of the PEF"):
            running.samba.session.run(input_tensors=[], graph_name=name)


def test_the_run_adds_the_graphs_of_the_compile(two: ModuleType, two_pef: str) -> None:
    """One graph less is another multigraph."""
    graphs = two.Graphs()
    two.samba.session.add_graph(
        two.FwdGraph(graphs.prefill_inputs, graphs.prefill_outputs, name=two.PREFILL)
    )
    with pytest.raises(RuntimeError, match=r"graphs of the PEF.*model_cache_10_fwd"):
        two.samba.session.init_multigraph_runtime(two_pef)


def test_the_run_shares_the_regions_of_the_compile(two: ModuleType, two_pef: str) -> None:
    """An alias that is forgotten at run time is another graph."""
    graphs = two.Graphs()
    graphs.decode_outputs[0].sn_region_name = "other"
    graphs.add()
    with pytest.raises(RuntimeError, match=r"PEF mismatch.*model_cache_10_fwd.*regions: other"):
        two.samba.session.init_multigraph_runtime(two_pef)


def test_the_session_is_set_up_before_a_trace(two: ModuleType) -> None:
    """Without the command's arguments nothing is traced."""
    two.samba.session.args = None
    with pytest.raises(RuntimeError, match=r"order of calls.*samba\.session\.setup"):
        two.Graphs()


def test_two_inputs_share_no_region(two: ModuleType, two_pef: str) -> None:
    """An index of its own for each graph cannot lie in one region."""
    graphs = two.Graphs()
    graphs.decode_inputs["input_ids"].sn_region_name = "last_token_index"
    graphs.add()
    with pytest.raises(RuntimeError, match=r"regions between graphs.*two inputs"):
        two.samba.session.init_multigraph_runtime(two_pef)


def test_tied_weights_are_refused(two: ModuleType) -> None:
    """A multigraph shares no weight tensor between modules."""
    with pytest.raises(RuntimeError, match=r"no tied weights in a multigraph.*lm_head.weight"):
        two.Graphs(two.tiny_model(tied=True))


def test_a_multigraph_is_for_inference(two: ModuleType) -> None:
    """Training is not supported."""
    with pytest.raises(RuntimeError, match=r"sections of the PEF.*inference=True"):
        two.samba.session.compile_multigraph(inference=False)


def test_a_decode_needs_a_prefill(running: ModuleType) -> None:
    """The cache holds nothing before it."""
    with pytest.raises(RuntimeError, match=r"regions between graphs.*never written"):
        running.decode(5, 0)


def test_the_cache_has_no_holes(running: ModuleType) -> None:
    """Positions follow each other, also after a shorter prompt replaced a longer one."""
    running.prefill(running.PROMPT)
    running.decode(5, 3)
    running.prefill([7, 7])
    with pytest.raises(RuntimeError, match=r"regions between graphs.*\[4\].*filled to \[1\]"):
        running.decode(5, 4)


def test_an_index_stays_inside_the_cache(running: ModuleType) -> None:
    """Past the end a scatter is undefined."""
    running.prefill(running.PROMPT)
    with pytest.raises(RuntimeError, match=r"no step past the compiled length.*capped at 9"):
        running.decode(5, 10)


def test_a_prompt_is_shorter_than_the_cache(running: ModuleType) -> None:
    """Its index lies inside the static length."""
    ids, index = torch.zeros(1, 6, dtype=torch.int32), int32(6)
    with pytest.raises(RuntimeError, match=r"no step past the compiled length.*0 to 5"):
        running.run(running.PREFILL, **{running.PREFILL_IDS: ids, "last_token_index": index})


def test_a_prompt_leaves_room_where_prefill_and_cache_are_as_long(stand_in: ModuleType) -> None:
    """A prompt as long as the cache has no place for its first token."""
    rules = importlib.import_module("sambaflow.stand_in.kv_cache").KvCacheRules()
    names = ["model_nocache_10_fwd", "model_cache_10_fwd"]
    rules.check(names[0], names, {"last_token_index": int32(8)})
    with pytest.raises(stand_in.ContractError, match="Prompts should be shorter"):
        rules.check(names[0], names, {"last_token_index": int32(9)})


def test_a_decode_mask_is_right_padded(running: ModuleType) -> None:
    """Left padding, or no one at the index, is refused."""
    running.prefill(running.PROMPT)
    for mask in (int32(0, 1, 1, 1, *[0] * 6), int32(1, 1, 1, *[0] * 7)):
        with pytest.raises(RuntimeError, match="right padding in the mask"):
            running.decode(5, 3, attention_mask=mask)


def test_a_decode_takes_one_token_of_one_row(running: ModuleType) -> None:
    """Two tokens, or two rows, are another shape."""
    running.prefill(running.PROMPT)
    for wrong in (int32(1, 2), torch.zeros(2, 1, dtype=torch.int32)):
        with pytest.raises(RuntimeError, match=r"exact shapes.*\(1, 1\)"):
            running.decode(5, 3, **{running.DECODE_IDS: wrong})


def test_inputs_have_the_names_of_their_graph(running: ModuleType) -> None:
    """The decode's ids are no input of the prefill."""
    with pytest.raises(RuntimeError, match=r"names of inputs.*consume_cache_True"):
        running.run(running.PREFILL, **{running.DECODE_IDS: int32(1)})


def test_a_multigraph_pef_is_no_single_graph(two: ModuleType, two_pef: str) -> None:
    """trace_graph wants the other kind."""
    model = two.tiny_model()
    two.samba.from_torch_model_(model)
    with pytest.raises(RuntimeError, match=r"PEF mismatch.*multigraph"):
        two.samba.utils.trace_graph(model, (two.named((1, 6), "ids"),), pef=two_pef)


def test_a_model_is_converted_before_a_trace(two: ModuleType) -> None:
    """A module around a converted model is enough, a torch model is not."""
    inputs = {"input_ids": two.named((1, 6), "ids"), "last_token_index": two.named((1, 1), "last")}
    with pytest.raises(RuntimeError, match=r"order of calls.*never converted"):
        two.trace_multigraph(two.tiny_model(), inputs, trace_prefix="graph")


def test_a_graph_is_added_once_with_its_own_tensors(two: ModuleType) -> None:
    """A name is taken once, and inputs and outputs come from one trace."""
    graphs = two.Graphs()
    graphs.add()
    with pytest.raises(RuntimeError, match=r"graphs of the PEF.*two graphs named"):
        graphs.add()
    mixed = two.FwdGraph(graphs.prefill_inputs, graphs.decode_outputs, name="mixed")
    with pytest.raises(RuntimeError, match=r"order of calls.*not traced together"):
        two.samba.session.add_graph(mixed)


def test_a_multigraph_has_graphs(two: ModuleType) -> None:
    """A trace alone adds none."""
    two.Graphs()
    with pytest.raises(RuntimeError, match=r"order of calls.*without graphs"):
        two.samba.session.compile_multigraph()


def test_names_are_unique_over_graphs(two: ModuleType) -> None:
    """Two tensors of one name are refused, whatever their regions."""
    graphs = two.Graphs()
    graphs.decode_inputs["input_ids"].sn_name = two.PREFILL_IDS
    graphs.add()
    with pytest.raises(RuntimeError, match=r"names of inputs.*two tensors named"):
        two.samba.session.compile_multigraph()


def test_graphs_of_published_names_have_the_published_inputs(two: ModuleType) -> None:
    """Integers of 32 bits, under their names, as long as the graph's name says."""
    rules = importlib.import_module("sambaflow.stand_in.kv_cache")
    graphs = two.Graphs()
    prefill, decode = (
        [one for one in inputs.values() if isinstance(one, two.SambaTensor)]
        for inputs in (graphs.prefill_inputs, graphs.decode_inputs)
    )
    rules.check_published(two.PREFILL, prefill)
    rules.check_published(two.DECODE, decode)
    for graph, inputs, said in (
        (two.PREFILL, prefill[1:], "names of inputs"),
        (two.PREFILL, decode, "names of inputs"),
        ("model_nocache_8_fwd", prefill, "names of inputs"),
        (two.DECODE, decode[:2], "names of inputs"),
    ):
        with pytest.raises(RuntimeError, match=f"{said}.*{graph}"):
            rules.check_published(graph, inputs)
    wide = two.samba.from_torch_tensor(torch.zeros(1, 1).long(), name="last_token_index")
    with pytest.raises(RuntimeError, match=r"exact dtypes.*last_token_index of torch\.int64"):
        rules.check_published(two.PREFILL, [prefill[0], wide])
    short = two.named((1, two.MAX_LENGTH - 1), "attention_mask")
    with pytest.raises(RuntimeError, match=r"exact shapes.*attention_mask of shape \(1, 9\)"):
        rules.check_published(two.DECODE, [decode[0], short, decode[2]])


def test_a_program_with_other_inputs_is_not_compiled(two: ModuleType) -> None:
    """A name of its own for the ids: refused before a PEF is written."""
    graphs = two.Graphs()
    graphs.prefill_inputs["input_ids"].sn_name = "input_ids"
    graphs.add()
    with pytest.raises(RuntimeError, match=r"names of inputs.*model_nocache_6_fwd.*'input_ids'"):
        two.samba.session.compile_multigraph()


def test_tensors_of_a_region_are_alike(two: ModuleType) -> None:
    """An output that shares a region has its shape and dtype."""
    graphs = two.Graphs()
    graphs.decode_outputs[0].sn_region_name = "attention_mask"
    graphs.add()
    with pytest.raises(RuntimeError, match=r"regions between graphs.*one shape and dtype"):
        two.samba.session.compile_multigraph()


def test_what_is_read_exists(running: ModuleType) -> None:
    """Only regions of the graphs can be fetched, and only after a run."""
    with pytest.raises(RuntimeError, match=r"regions between graphs.*no region named 'logit'"):
        running.samba.session.get_tensors_by_name(["logit"])
    with pytest.raises(RuntimeError, match=r"read through to_torch.*before any run"):
        _ = running.samba.session.get_tensors_by_name(["logits"])[0].data
    empty = running.SambaTensor(shape=(1,), dtype=torch.int32, name="empty")
    with pytest.raises(RuntimeError, match=r"read through to_torch.*holds no data"):
        running.samba.to_torch(empty)


def test_a_graph_gives_its_own_outputs(running: ModuleType) -> None:
    """output_tensors may be left out; given ones are those of the graph's trace."""
    other = [running.named((1, 1), "other")]
    with pytest.raises(RuntimeError, match=r"output tensors of trace_graph"):
        running.samba.session.run([], output_tensors=other, graph_name=running.DECODE)


def test_weights_are_there_before_they_are_transferred(program: ModuleType) -> None:
    """A model that was compiled without weights has none to run with."""
    with torch.device("meta"):
        model = program.patch_(program.stock_model())
    program.samba.from_torch_model_(model)
    with pytest.raises(RuntimeError, match=r"order of calls.*no values to transfer"):
        program.samba.session.to_rdu(model)
