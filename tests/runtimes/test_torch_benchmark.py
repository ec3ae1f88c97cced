"""The GPU benchmark on a tiny model and the CPU: it runs, counts right, and both sides compute the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from benchmarks import gpu

TINY = gpu.bert("tiny", 24, "mean", 2, 64, 4)
DECODER = gpu.Shape("decoder", "qwen3", 12, "lasttoken", {**TINY.config, "num_key_value_heads": 2, "head_dim": 16})


@pytest.mark.parametrize("shape", [TINY, DECODER], ids=lambda shape: shape.name)
def test_both_sides_compute_the_same(shape: gpu.Shape, capsys: pytest.CaptureFixture[str]) -> None:
    rates = gpu.compare(shape, {"lemni": {"runtime": "torch"}}, "cpu", peak=1e9, rounds=1)
    assert set(rates) == {"lemni, float32", "sentence-transformers, 32", "sentence-transformers, 128"}
    assert min(rates.values()) > 0
    assert capsys.readouterr().out.count("1.00000, least 1.00000") == 3


def test_lengths_are_those_of_the_tokenizer(tmp_path: object) -> None:
    texts, lengths = gpu.mixed_texts(50)
    assert [len(text.split()) + 2 for text in texts] == lengths.tolist()
    assert lengths.min() >= 4
    assert lengths.max() <= gpu.LONGEST


def test_work_is_that_of_torch_s_own_count() -> None:
    import transformers
    from torch.utils.flop_counter import FlopCounterMode

    # Attention in plain products, which the counter knows.
    config = transformers.BertConfig(vocab_size=99, **TINY.config, attn_implementation="eager")
    model = transformers.BertModel(config, add_pooling_layer=False).eval()
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.ones(3, 40, dtype=torch.int64))
    found = gpu.flops(config.to_dict(), np.array([40, 40, 40]))
    assert found == pytest.approx(counter.get_total_flops(), rel=1e-6)


def test_a_rate_of_products() -> None:
    assert gpu.gemm_rate(torch.device("cpu"), 64, torch.float32, seconds=0.01) > 1e6


def test_without_a_gpu_it_says_so() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit, match="needs a GPU"):
        gpu.main()
