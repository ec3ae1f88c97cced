"""Linear layers in 8-bit floats: the codes, torch's product against its emulation, and models with both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as hf

import lemni
from lemni.errors import ConfigError
from lemni.hub import ModelFiles
from lemni.ops.torch_fp8 import FP8, Fp8, Matrix, emulated_scaled_mm, fp8_of, quantize, scaled_mm
from lemni.runtimes.base import BackendOptions
from lemni.runtimes.torch_devices import running
from lemni.runtimes.torch_graphs import Capture
from lemni.runtimes.torch_kernels import Kernels, kernels_of
from lemni.types import PackedBatch, Sequence
from tests.families.decoders import save
from tests.runtimes.torch_emulation import CPU, Replays, concatenated, cosines, model_of, varlen

EMULATED = Fp8(emulated_scaled_mm, smallest_side=32)
SIZES: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "max_position_embeddings": 64,
}
FAMILIES: dict[str, Any] = {
    "bert": hf.BertConfig(**SIZES),
    "albert": hf.AlbertConfig(**SIZES, embedding_size=32),
    "qwen3": hf.Qwen3Config(**SIZES, num_key_value_heads=2, head_dim=16),
    "deberta": hf.DebertaV2Config(**SIZES, relative_attention=True, pos_att_type=["c2p", "p2c"]),
}


def test_codes_are_those_of_the_format() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 64) * torch.logspace(-4, 4, 40)[:, None]
    codes, scales = quantize(x)
    assert (codes.dtype, codes.shape, scales.shape, scales.dtype) == (FP8, x.shape, (40, 1), torch.float32)
    assert codes.float().abs().amax(dim=1).tolist() == [448.0] * 40
    back = codes.float() * scales
    # Three bits after the leading one, so half a step is 1/16 of a value; below 2^-6 steps are of one size.
    assert bool(((back - x).abs() <= x.abs() / 16 + scales * 2**-10).all())


def test_rows_of_zeros_and_of_halves_that_are_large() -> None:
    codes, scales = quantize(torch.tensor([[0.0, 0.0], [65504.0, -65504.0]]).half())
    back = codes.float() * scales
    torch.testing.assert_close(back, torch.tensor([[0.0, 0.0], [65504.0, -65504.0]]), rtol=1e-6, atol=0)


def test_nan_stays_nan() -> None:
    codes, scales = quantize(torch.tensor([[1.0, torch.nan]]))
    assert bool((codes.float() * scales).isnan().any())


@pytest.mark.parametrize("tokens", [1, 7, 33])
@pytest.mark.parametrize("biased", [False, True])
def test_torch_s_product_is_the_emulated_one(tokens: int, biased: bool) -> None:
    torch.manual_seed(tokens)
    x, weight = quantize(torch.randn(tokens, 64)), quantize(torch.randn(48, 64))
    bias = torch.randn(48).bfloat16() if biased else None
    kernel = scaled_mm(x, weight, bias, torch.bfloat16)
    emulated = emulated_scaled_mm(x, weight, bias, torch.bfloat16)
    assert kernel.dtype is emulated.dtype is torch.bfloat16
    torch.testing.assert_close(kernel, emulated, rtol=1e-2, atol=1e-2)  # both are rounded to 8 bits


def test_a_layer_is_near_to_the_exact_one() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 9, 256), torch.randn(128, 256), torch.randn(128)
    exact = torch.nn.functional.linear(x, weight, bias)
    matrix = Matrix(weight.clone())
    found = EMULATED.linear(x, matrix, bias)
    assert found.shape == exact.shape
    assert matrix.tensor is None  # its memory is free
    assert float(torch.nn.functional.cosine_similarity(found, exact, dim=-1).min()) > 0.998
    torch.testing.assert_close(EMULATED.linear(x, matrix, bias), found, rtol=0, atol=0)


def test_small_and_odd_matrices_stay() -> None:
    fp8 = Fp8()
    assert fp8.is_worth_it(torch.empty(256, 1024))
    for shape in [(255, 1024), (1024, 16), (264, 1024), (1024,), (4, 256, 256)]:
        assert not fp8.is_worth_it(torch.empty(shape)), shape
    assert not fp8.is_worth_it(torch.empty(256, 256, dtype=torch.int32))


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp(request.param)
    save(hf.AutoModel.from_config(FAMILIES[request.param]), where)
    return where


@pytest.mark.parametrize("capture", [None, Replays()], ids=["eager", "graphs"])
def test_models_are_near_to_those_in_float32(folder: Path, capture: Capture | None) -> None:
    random = np.random.default_rng(0)
    batch = PackedBatch.pack([Sequence(random.integers(2, 96, n, dtype=np.int32), ("tokens",)) for n in (20, 1, 9, 60)])
    exact, rough = model_of(folder, Kernels()), model_of(folder, Kernels(varlen, EMULATED, capture))
    with running():
        expected = concatenated(exact(batch), "tokens")
        found = [concatenated(rough(batch), "tokens") for _ in range(3)]
    alike = cosines(found[0], expected)
    assert alike.mean() > 0.99
    assert np.abs(found[0] - expected).max() > 1e-4  # it is in use
    np.testing.assert_allclose(found, [found[0]] * 3, atol=1e-4)


def test_cpus_have_none() -> None:
    with pytest.raises(ConfigError, match=r"fp8 needs a GPU of compute capability 8\.9 or higher, and cpu is no GPU"):
        fp8_of(CPU)
    with pytest.raises(ConfigError, match="cpu is no GPU"):
        kernels_of(CPU, torch.bfloat16, BackendOptions(dtype="fp8"))


def test_older_gpus_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "NVIDIA A100")
    with pytest.raises(ConfigError, match=r"NVIDIA A100 has compute capability 8\.0: choose another dtype"):
        fp8_of(torch.device("cuda:0"))


@pytest.mark.parametrize("runtime", ["auto", "torch", "transformers", "openvino"])
def test_a_model_on_a_cpu_is_refused(runtime: Any, minilm: ModelFiles) -> None:
    with pytest.raises(ConfigError, match=r"fp8 is computed by the torch runtime, on GPUs; .* on cpu: choose another"):
        lemni.load(str(minilm.path), runtime=runtime, device="cpu", dtype="fp8")
