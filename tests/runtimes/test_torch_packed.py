"""The torch runtime as on a GPU, with emulated kernels: packed attention, staging, graphs, torch.compile."""

from __future__ import annotations

import dataclasses
import inspect
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf
from numpy.typing import NDArray

from lemni.ops.torch import TorchInputs
from lemni.ops.torch_staging import Uploads, sizes
from lemni.runtimes.base import BackendOptions, Heads
from lemni.runtimes.torch import Lane
from lemni.runtimes.torch_devices import running, torch_limits
from lemni.runtimes.torch_graphs import TOKENS, Bucket, bucket_of, filled
from lemni.runtimes.torch_kernels import Kernels, kernels_of, torch_compiler
from lemni.tasks.pooling import pooling_table
from lemni.types import Output, PackedBatch, Sequence
from tests.families.decoders import HIDDEN, save
from tests.runtimes.torch_emulation import CPU, Replays, concatenated, model_of, varlen

SIZES: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 160,
}
GROUPED: dict[str, Any] = {**SIZES, "num_key_value_heads": 2, "pad_token_id": 0}
MODERN: dict[str, Any] = {
    **SIZES,
    "global_attn_every_n_layers": 2,
    "local_attention": 8,
    **{f"{name}_token_id": 1 for name in ("pad", "cls", "sep", "bos", "eos")},
}
GEMMA: dict[str, Any] = {
    **GROUPED,
    "head_dim": 16,
    "sliding_window": 6,
    "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
}
FAMILIES: dict[str, Any] = {
    "bert": hf.BertConfig(**SIZES),
    "roberta": hf.RobertaConfig(**SIZES, pad_token_id=1),
    "electra": hf.ElectraConfig(**SIZES, embedding_size=16),
    "distilbert": hf.DistilBertConfig(vocab_size=99, dim=32, n_layers=3, n_heads=4, hidden_dim=48),
    "albert": hf.AlbertConfig(**SIZES, embedding_size=16),
    "modernbert": hf.ModernBertConfig(**MODERN),
    "nomic-bert": hf.NomicBertConfig(**SIZES),
    "gte": hf.GteConfig(**SIZES, type_vocab_size=1),
    "eurobert": hf.EuroBertConfig(**GROUPED),
    "qwen3": hf.Qwen3Config(**GROUPED, head_dim=16),
    "qwen2": hf.Qwen2Config(**GROUPED, use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "llama": hf.LlamaConfig(**GROUPED),
    "mistral": hf.MistralConfig(**GROUPED, sliding_window=6),
    "gemma3": hf.Gemma3TextConfig(**GEMMA),
}
ONE_LAYER: dict[str, Any] = {
    "one layer": hf.BertConfig(**{**SIZES, "num_hidden_layers": 1}),
    "qwen3 of one layer": hf.Qwen3Config(**{**GROUPED, "num_hidden_layers": 1}, head_dim=16),
}
IN_ROWS: dict[str, Any] = {
    "mpnet": hf.MPNetConfig(**SIZES),  # a bias for each distance
    "deberta": hf.DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"]),
}
MODES = ("cls", "mean", "max", "lasttoken", "weightedmean", "mean_sqrt_len_tokens")


def every_mode(include_prompt: bool) -> Heads:
    """All pooling modes side by side, and the states of the tokens."""
    table = pooling_table(include_prompt)

    def pooled(ops: Any) -> Any:
        return lambda hidden, inputs: ops.concat([table[mode](ops, hidden, inputs).float() for mode in MODES])

    return {"dense": pooled, **HIDDEN}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Models this small are slower on several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Any]]:
    """A family's folder with random weights, and transformers' model of it."""
    made: dict[str, tuple[Path, Any]] = {}

    def make(name: str) -> tuple[Path, Any]:
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            made[name] = folder, save(hf.AutoModel.from_config({**FAMILIES, **ONE_LAYER, **IN_ROWS}[name]), folder)
        return made[name]

    return make


def batch_of(
    *lengths: int, outputs: tuple[Output, ...] = ("tokens",), starts: bool = False, seed: int = 0
) -> PackedBatch:
    random = np.random.default_rng(seed)
    ids = [random.integers(2, 99, length, dtype=np.int32) for length in lengths]
    return PackedBatch.pack([Sequence(one, outputs, pool_start=len(one) // 3 if starts else 0) for one in ids])


def states_of(model: Any, batch: PackedBatch) -> NDArray[np.float32]:
    """Hidden states [T, hidden] by transformers, one sequence at a time."""
    with torch.inference_mode():
        pieces = [torch.from_numpy(ids.astype(np.int64))[None] for ids in np.split(batch.ids, batch.starts[1:])]
        return np.concatenate([model(ids).last_hidden_state[0].numpy() for ids in pieces])


def run(compute: Any, batch: PackedBatch) -> list[Any]:
    with running():
        rows: list[Any] = compute(batch)
    return rows


def test_the_emulation_takes_what_the_kernel_takes() -> None:
    from torch.nn.attention.varlen import varlen_attn

    real, own = inspect.signature(varlen_attn).parameters, inspect.signature(varlen).parameters
    assert list(own) == [name for name in real if name in own]
    assert {name: (one.kind, one.default) for name, one in own.items()} == {
        name: (real[name].kind, real[name].default) for name in own
    }


@pytest.mark.parametrize("name", FAMILIES)
def test_packed_attention_gives_the_states_of_transformers(name: str, tiny: Any) -> None:
    folder, reference = tiny(name)
    batch = batch_of(1, 2, 7, 150, 64, 31)
    expected = states_of(reference, batch)
    assert np.abs(expected).max() > 0.5  # differences mean something
    model = model_of(folder, Kernels(varlen=varlen))
    with running():  # refuses rows
        packed = TorchInputs(batch, CPU, torch.float32, packed_only=True)
        assert np.abs(model._forward(packed, ["tokens"])[0].numpy() - expected).max() <= 1e-4
    assert np.abs(concatenated(run(model, batch), "tokens") - expected).max() <= 1e-4


@pytest.mark.parametrize("name", IN_ROWS)
def test_attention_that_the_kernel_lacks_is_computed_in_rows(name: str, tiny: Any) -> None:
    folder, reference = tiny(name)
    replays = Replays()
    model = model_of(folder, Kernels(varlen=varlen, capture=replays, compiler=torch_compiler("eager")))
    batch = batch_of(3, 9)
    for _ in range(3):
        assert np.abs(concatenated(run(model, batch), "tokens") - states_of(reference, batch)).max() <= 1e-4
    assert replays.recorded == 0


def test_masks_at_the_end_are_computed_in_rows(tiny: Any) -> None:
    folder, _ = tiny("bert")
    batch = batch_of(5, 8)
    masked = dataclasses.replace(batch, unattended=np.array([2, 0], dtype=np.int32))
    kernels = Kernels(varlen=varlen, capture=Replays(), compiler=torch_compiler("eager"))
    model, plain = model_of(folder, kernels), model_of(folder, Kernels())
    found = [concatenated(run(model, masked), "tokens") for _ in range(3)]
    expected = concatenated(run(plain, masked), "tokens")
    assert np.abs(found - expected).max() <= 1e-5
    assert np.abs(concatenated(run(model, batch), "tokens") - expected).max() > 0.01


@pytest.mark.parametrize(
    ("lengths", "bucket"),
    [
        ((1,), (16, 5)),
        ((16,), (16, 5)),
        ((4, 4, 4, 3), (16, 5)),
        ((3, 3, 4, 3, 3), (16, 5)),
        ((3, 3, 3, 3, 3), (32, 9)),  # a sixth place for the tokens that are left
        ((17,), (32, 9)),
        ((1,) * 30, (128, 33)),
        ((256,), (256, 65)),
        ((257,), None),
        ((1,) * 70, None),
    ],
)
def test_the_smallest_recording_that_fits(lengths: tuple[int, ...], bucket: tuple[int, int] | None) -> None:
    batch = batch_of(*lengths)
    assert bucket_of(batch) == bucket
    if bucket is not None:
        full = filled(batch, Bucket(*bucket))
        assert (full.tokens, len(full)) == bucket
        assert full.lengths.sum() == full.tokens
        np.testing.assert_array_equal(full.lengths[: len(batch)], batch.lengths)
        np.testing.assert_array_equal(full.ids[: batch.tokens], batch.ids)
        found = Uploads(CPU).stage(full)
        assert sum(map(len, found)) == sum(sizes(*bucket))
        for places in (found.first, found.last):
            assert int(places.min()) >= 0
            assert int(places.max()) < full.tokens


@pytest.mark.parametrize("include_prompt", [True, False])
@pytest.mark.parametrize("name", ["one layer", "qwen3 of one layer"])
def test_replays_give_what_is_computed_eagerly(name: str, include_prompt: bool, tiny: Any) -> None:
    folder, _ = tiny(name)
    heads, replays = every_mode(include_prompt), Replays()
    plain, model = model_of(folder, Kernels(), heads), Lane(model_of(folder, Kernels(varlen, capture=replays), heads))
    shapes = [(1,), (16,), (2, 2, 3), (9, 20), (100, 20, 3), (90, 90), (150, 106)]
    for outputs in (("dense",), ("dense", "tokens")):
        for seed, lengths in enumerate(2 * shapes):
            batch = batch_of(*lengths, outputs=outputs, starts=not include_prompt, seed=seed)
            for row, expected in zip(run(model, batch), run(plain, batch), strict=True):
                assert set(row) == set(expected) == set(outputs)
                for output in outputs:
                    np.testing.assert_allclose(row[output], expected[output], atol=2e-5)
    assert replays.recorded == 2 * len({bucket_of(batch_of(*lengths)) for lengths in shapes})
    assert replays.replayed == 2 * (2 * len(shapes) - replays.recorded // 2)


def test_large_batches_are_not_recorded(tiny: Any) -> None:
    replays = Replays()
    model = model_of(tiny("bert")[0], Kernels(varlen, capture=replays))
    for _ in range(3):
        run(model, batch_of(150, TOKENS[-1] - 149))
    assert replays.recorded == 0


def test_a_recording_that_fails_is_tried_once(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    tries = []

    def broken(work: Any) -> Any:
        tries.append(work)
        raise RuntimeError("operation not permitted when stream is capturing")

    folder, reference = tiny("bert")
    model, batch = model_of(folder, Kernels(varlen, capture=broken)), batch_of(5, 3)
    for _ in range(4):
        assert np.abs(concatenated(run(model, batch), "tokens") - states_of(reference, batch)).max() <= 1e-4
    assert len(tries) == 1
    assert "not permitted" in caplog.text


@pytest.mark.parametrize("ended", [True, False])
def test_a_recording_without_memory_is_tried_again(ended: bool, tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    replays = Replays()
    full = [True, True]

    def capture(work: Any) -> Any:
        if not full:
            return replays(work)
        try:
            raise torch.OutOfMemoryError("tried to allocate 2 MiB")
        finally:
            full.pop()
            if not ended:
                raise RuntimeError("operation failed due to a previous error during capture")

    folder, reference = tiny("bert")
    model, batch = model_of(folder, Kernels(varlen, capture=capture)), batch_of(5, 3)
    run(model, batch)
    with pytest.raises(MemoryError, match="2 MiB"):
        run(model, batch)
    for one in (batch_of(8), batch):  # a single sequence has nothing smaller: it is computed without a recording
        assert np.abs(concatenated(run(model, one), "tokens") - states_of(reference, one)).max() <= 1e-4
    assert (replays.recorded, replays.replayed) == (1, 1)
    assert not caplog.records


def test_lanes_in_threads_keep_their_batches_apart(tiny: Any) -> None:
    folder, _ = tiny("bert")
    plain, model = model_of(folder, Kernels()), model_of(folder, Kernels(varlen, capture=Replays()))
    shapes = [(5,), (7, 2), (40,), (11, 3), (150,)]
    batches = [batch_of(*lengths, seed=seed) for seed, lengths in enumerate(shapes)]
    expected = [concatenated(run(plain, batch), "tokens") for batch in batches]
    worst: list[float] = []

    def work(lane: Lane, order: int) -> None:
        for turn in range(30):
            n = (turn * order) % len(batches)
            worst.append(float(np.abs(concatenated(run(lane, batches[n]), "tokens") - expected[n]).max()))

    threads = [threading.Thread(target=work, args=(Lane(model), order)) for order in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worst) == 90
    assert max(worst) <= 2e-5


@pytest.mark.parametrize("name", ["one layer", "qwen3 of one layer"])
def test_what_is_compiled_gives_the_same_for_all_shapes(name: str, tiny: Any) -> None:
    folder, reference = tiny(name)
    torch._dynamo.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    model = model_of(folder, Kernels(varlen, compiler=torch_compiler(backend)))
    assert len(graphs) == 2  # while it was loaded, and in one piece each
    for lengths in [(5, 3), (1,), (1, 1), (2,), (2, 1), (32,), (150,), (7, 2, 30), (40, 41), (1,) * 31]:
        batch = batch_of(*lengths)
        assert np.abs(concatenated(run(model, batch), "tokens") - states_of(reference, batch)).max() <= 1e-4
    assert len(graphs) == 2


def test_models_of_other_sizes_are_compiled_each_for_itself(tmp_path: Path) -> None:
    torch._dynamo.reset()
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    for number in range(9):  # more than torch.compile makes of one function
        folder = tmp_path / str(number)
        config = hf.BertConfig(**{**SIZES, "num_hidden_layers": 1 + number % 2, "intermediate_size": 40 + number})
        hf.BertModel(config).save_pretrained(folder)
        model_of(folder, Kernels(varlen, compiler=torch_compiler(backend)))
        assert len(graphs) == 2 * number + 2
        weights = [node.meta["example_value"] for node in graphs[-1].graph.nodes if "weight" in node.name]
        assert len(weights) >= 6
        assert all(isinstance(size, int) for weight in weights for size in weight.shape)


def test_compiled_passes_are_recorded(tiny: Any) -> None:
    folder, reference = tiny("one layer")
    torch._dynamo.reset()
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    replays = Replays()
    model = model_of(folder, Kernels(varlen, capture=replays, compiler=torch_compiler(backend)))
    for lengths in 3 * [(5, 3), (1,), (9, 20), (60, 60), (150, 106)]:
        batch = batch_of(*lengths)
        assert np.abs(concatenated(run(model, batch), "tokens") - states_of(reference, batch)).max() <= 1e-4
    assert (len(graphs), replays.recorded) == (2, 4)


def test_a_compiler_that_fails_is_left_out(tiny: Any, caplog: pytest.LogCaptureFixture) -> None:
    def broken(function: Any) -> Any:
        raise RuntimeError("no C compiler")

    folder, reference = tiny("bert")
    model, batch = model_of(folder, Kernels(varlen, compiler=broken)), batch_of(5, 3)
    assert np.abs(concatenated(run(model, batch), "tokens") - states_of(reference, batch)).max() <= 1e-4
    assert "no C compiler" in caplog.text


def test_a_cpu_has_none_of_it() -> None:
    assert kernels_of(CPU, torch.bfloat16, BackendOptions()) == Kernels()


def test_a_gpu_has_two_lanes() -> None:
    assert torch_limits(BackendOptions(), 2).replicas == 1
    assert torch_limits(BackendOptions(("cuda:0",)), 2).replicas == 2
    assert torch_limits(BackendOptions(("cuda:0", "cuda:1")), 2).replicas == 4
    assert torch_limits(BackendOptions(("cuda:0",), replicas=1), 2).replicas == 1
    assert torch_limits(BackendOptions(("cuda:0",))).replicas == 1
