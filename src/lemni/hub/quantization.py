"""In which precision a model's weights are stored: by what `config.json` says of codes, else by the tensors' types.

Read are 8-bit integers as compressed-tensors lays them out (`hub/codes.py`), as `lemni quantize` and llm-compressor
write them; other schemes have kernels of their own, and are named.
"""

from __future__ import annotations

import contextlib
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from lemni.errors import ModelLoadError
from lemni.hub.spec import ModelSpec
from lemni.hub.tensors import TensorStore

METHOD = "compressed-tensors"
FORMAT = "int-quantized"
"""As `lemni quantize` writes them."""

_READ = (FORMAT, "naive-quantized")
_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16", "F64": "float64", "I8": "int8"}


def stored_precision(spec: ModelSpec) -> str:
    """For people: "float32", "int8" or the scheme's name such as "gptq, 4 bits"; of several that of most values;
    "" if there are no safetensors files, or broken ones."""
    if scheme := _scheme(spec.config):
        return "int8" if _is_read(scheme) else _name(scheme)
    values: Counter[str] = Counter()
    with contextlib.suppress(ModelLoadError), TensorStore(spec.weights) as store:
        for name in store.names():
            values[store.dtype(name)] += math.prod(store.shape(name))
    return next((_NAMES.get(dtype, dtype) for dtype, _ in values.most_common(1)), "")


def has_codes(spec: ModelSpec) -> bool:
    """Whether its weights are stored as 8-bit codes that Lemni reads."""
    scheme = _scheme(spec.config)
    return scheme is not None and _is_read(scheme)


def check_scheme(spec: ModelSpec) -> None:
    """Raises ModelLoadError for weights that are stored in a scheme that Lemni does not read."""
    scheme = _scheme(spec.config)
    if scheme is not None and not _is_read(scheme):
        raise ModelLoadError(
            f"{spec.files.id}: its weights are quantised with {_name(scheme)}, which Lemni does not read; it reads "
            f"int8 codes of {METHOD} ({FORMAT}) with a scale for each row, as `lemni quantize` writes them. The "
            "transformers runtime may run it (--runtime transformers, extra 'torch', and the scheme's own package)"
        )


def _scheme(config: Mapping[str, Any]) -> Mapping[str, Any] | None:
    found = config.get("quantization_config") or config.get("compression_config")
    return found if isinstance(found, Mapping) else None


def _is_read(scheme: Mapping[str, Any]) -> bool:
    return (
        scheme.get("quant_method", METHOD) == METHOD
        and scheme.get("format") in _READ
        and bool(_weights(scheme))
        and all(
            args.get("num_bits") == 8 and args.get("type") == "int" and args.get("strategy") in ("channel", "tensor")
            for args in _weights(scheme)
        )
    )


def _weights(scheme: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What is said of weights, in each group."""
    groups = scheme.get("config_groups")
    found = [group.get("weights") for group in groups.values()] if isinstance(groups, Mapping) else []
    return [args for args in found if isinstance(args, Mapping)]


def _name(scheme: Mapping[str, Any]) -> str:
    kind, layout = scheme.get("quant_method") or "an unnamed scheme", scheme.get("format")
    loaded = [bits for bits in (4, 8) for mark in ("", "_") if scheme.get(f"{mark}load_in_{bits}bit")]
    widths = {*(args.get("num_bits") for args in _weights(scheme)), scheme.get("bits"), scheme.get("w_bit"), *loaded}
    bits = "/".join(str(width) for width in sorted(width for width in widths if isinstance(width, int)))
    return ", ".join([f"{kind} ({layout})" if layout else str(kind), *([f"{bits} bits"] if bits else [])])
