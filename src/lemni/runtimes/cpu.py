"""Compiling for the CPU with OpenVINO: what graphs of families and ONNX files have in common."""

from __future__ import annotations

import logging
import math
import os
from pathlib import Path
from typing import Any, Literal

from lemni.errors import ConfigError, ModelLoadError
from lemni.runtimes.base import BackendOptions, Limits

logger = logging.getLogger(__name__)

# None: what OpenVINO prefers on this CPU, bfloat16 where it multiplies that twice as fast.
_PRECISIONS = {"float32": "f32", "float16": "f32", "bfloat16": "bf16", "int8": None}
_DTYPES = {"f32": "float32", "float": "float32", "bf16": "bfloat16", "bfloat16": "bfloat16"}

# Batches that stay in a core's cache; an eighth of one takes about a sixth longer per token: `python -m benchmarks
# batch_tokens`.
_BATCH_TOKENS = 512
_EFFICIENT_TOKENS = 64

# Activations in groups of so many values, each with a scale of its own: 128 is faster than 64 and costs little more
# (`python -m benchmarks precision`), but every product must be over a multiple of it.
_INT8_GROUPS = (128, 64)


def cpu_limits(options: BackendOptions) -> Limits:
    """Budget and replicas; one stream on all cores was as fast as several streams on a core each."""
    return Limits(_BATCH_TOKENS, options.replicas or 1, _EFFICIENT_TOKENS)


def cpu_threads(options: BackendOptions) -> int:
    return options.threads or available_cpus()


def available_cpus(quota: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """CPUs that this process may use: those it is bound to, and no more than its container's share of time allows.

    `quota` is cgroup v2's file, "MICROSECONDS PERIOD" or "max PERIOD". More threads than that would be halted together
    in the middle of a pass.
    """
    bound = len(os.sched_getaffinity(0))
    try:
        allowed, period = quota.read_text().split()
        return bound if allowed == "max" else max(1, min(bound, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):
        return bound


def weights_for(dtype: str) -> Literal["float32", "float16", "int8"]:
    """How the weights of a family's graph are kept to compute in `dtype`."""
    if dtype == "float16":
        logger.warning("CPUs do not compute in float16: the weights are rounded to it, which saves no time")
        return "float16"
    return "int8" if dtype == "int8" else "float32"


def compile_for_cpu(model: Any, options: BackendOptions) -> tuple[Any, str]:
    """An `openvino.Model` compiled, and the precision in which it really computes.

    Raises:
        ConfigError: a precision that OpenVINO does not compute in on CPUs.
        ModelLoadError: OpenVINO cannot compile it.
    """
    import openvino as ov

    if options.dtype not in _PRECISIONS:
        raise ConfigError(
            f"OpenVINO does not compute in {options.dtype} on CPUs: use float32, bfloat16, int8, or the torch runtime"
        )
    # int8: the weights are codes already (`ops/int8.py`); what is multiplied with them is quantised in groups. What is
    # between the products (attention, norms) is in the precision that OpenVINO prefers; its last product gives float32.
    group = str(_int8_group(model)) if options.dtype == "int8" else "0"
    config: dict[str, Any] = {
        "NUM_STREAMS": options.replicas or 1,
        "INFERENCE_NUM_THREADS": cpu_threads(options),
        # Threads that are fewer than the cores may be wherever a core is free: others would be pinned to the same ones.
        "ENABLE_CPU_PINNING": cpu_threads(options) >= len(os.sched_getaffinity(0)),
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": group,
    }
    if precision := _PRECISIONS[options.dtype]:
        config["INFERENCE_PRECISION_HINT"] = precision
    try:
        compiled = ov.Core().compile_model(model, "CPU", config)
    except RuntimeError as error:
        raise ModelLoadError(f"OpenVINO cannot compile the model: {error}") from error
    if options.dtype in ("int8", "float16"):
        return compiled, options.dtype
    real = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    dtype = _DTYPES.get(real, real)
    if dtype != options.dtype:
        logger.warning("this CPU does not compute in %s; %s is used", options.dtype, dtype)
    return compiled, dtype


def _int8_group(model: Any) -> int:
    """The largest group that fits every product with weights."""
    widths = []
    for node in model.get_ops():
        if node.get_type_name() == "MatMul" and node.get_input_partial_shape(1).is_static:
            width = node.get_input_partial_shape(0)[-1]
            widths.append(width.get_length() if width.is_static else 1)
    return next((group for group in _INT8_GROUPS if all(width % group == 0 for width in widths)), _INT8_GROUPS[-1])
