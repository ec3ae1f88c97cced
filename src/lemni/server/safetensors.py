"""Vectors as one safetensors file, raw bytes that need no decoding, for clients whose `Accept` header names it.

Formats: https://github.com/huggingface/safetensors#format; RFC 9110, 12.5.1 for the header. Errors stay JSON. The
dialects of OpenAI and Infinity answer with it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import orjson
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from numpy.typing import NDArray

from lemni.server.call import Call, truncation_header, usage_of
from lemni.server.quantized import ranges_for
from lemni.server.rows import off_the_loop
from lemni.tasks.output_types import OutputType, convert, convert_scaled
from lemni.types import ModelCard, Options, Result

MEDIA_TYPE = "application/x-safetensors"

VARY = {"vary": "Accept"}
"""Header of every answer that the `Accept` header decides about."""

VectorType: TypeAlias = OutputType | Literal["int8_scaled"]

_QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"?')
_WEIGHT = re.compile(r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?", re.ASCII)

# A dtype's name in the file, and numpy's for its bytes.
_DTYPES: dict[VectorType, tuple[str, str]] = {
    "float32": ("F32", "<f4"),
    "float16": ("F16", "<f2"),
    "bfloat16": ("BF16", "<u2"),
    "int8": ("I8", "i1"),
    "int8_scaled": ("I8", "i1"),
    "uint8": ("U8", "u1"),
    "binary": ("I8", "i1"),
    "ubinary": ("U8", "u1"),
}


class Tensor(NamedTuple):
    """One tensor of a file.

    Attributes:
        dtype: the format's name: "F32", "I64" ...
        shape: of the whole.
        parts: C-contiguous little-endian arrays that, end to end, are its bytes.
    """

    dtype: str
    shape: tuple[int, ...]
    parts: Seq[NDArray[Any]]


def wanted(http: HttpRequest) -> bool:
    """Whether the client would rather have safetensors than JSON.

    It names the media type itself, with a weight over 0 and not under JSON's; `*/*` and `application/*` mean JSON.
    """
    return prefers(",".join(http.headers.getlist("accept")))


def prefers(accept: str) -> bool:
    """`wanted`, of an `Accept` header. Ranges that are no media ranges or have no valid weight count for nothing."""
    if MEDIA_TYPE not in accept.lower():
        return False
    weights: dict[str, float] = {}
    # A quoted string is the value of a parameter that means nothing here, and may have commas.
    for one in _QUOTED.sub("", accept.lower()).split(","):
        name, *parameters = (part.strip() for part in one.split(";"))
        named = (part.partition("=") for part in parameters)
        weight = next((value.strip() for key, _, value in named if key.strip() == "q"), "1")
        if _WEIGHT.fullmatch(weight):
            weights[name] = max(float(weight), weights.get(name, 0))
    # The most specific range decides, whatever the order.
    json = next((weights[name] for name in ("application/json", "application/*", "*/*") if name in weights), 0)
    ours = weights.get(MEDIA_TYPE, 0)
    return ours > 0 and ours >= json


async def safetensors_response(
    call: Call,
    card: ModelCard,
    options: Options,
    result: Result,
    outputs: Seq[str],
    output_type: VectorType = "float32",
) -> Response:
    """The answer with all `outputs` of a result ("dense", "sparse", "multi_vector"); `output_type` is the dense ones'.

    Raises what the engine raises while it measures ranges; InvalidRequest for a value too large for float16.
    """
    ranges = None if output_type == "int8_scaled" else await ranges_for(call, card, options, [output_type])
    usage = {key: str(count) for key, count in usage_of(result).items()}

    def write() -> bytes:
        return serialize(tensors_of(result, outputs, output_type, ranges), {"model": card.name, **usage})

    size = result.vectors.nbytes + sum(
        one.nbytes for one in (*result.multi_vectors, *(part for vector in result.sparse for part in vector))
    )
    headers = {**VARY, **truncation_header(result)}
    return Response(await off_the_loop(size, write), headers=headers, media_type=MEDIA_TYPE)


def tensors_of(
    result: Result,
    outputs: Seq[str],
    output_type: VectorType = "float32",
    ranges: NDArray[np.float32] | None = None,
) -> dict[str, Tensor]:
    """What the outputs are in the file.

    - dense: `embeddings` [n, dim], for bits [n, ceil(dim / 8)]; `int8_scaled` adds `scales` F32 [n].
    - multi_vector: `multi_vectors` F32 [sum of tokens, dim], `lengths` I64 [n].
    - sparse: `sparse_indices` I32 [nnz], `sparse_values` F32 [nnz], `sparse_lengths` I64 [n].

    Args:
        ranges: float32 [2, dim], of the model; for int8 and uint8.

    Raises:
        InvalidRequest: a value too large for float16.
    """
    found: dict[str, Tensor] = {}
    if "dense" in outputs:
        if output_type == "int8_scaled":
            codes, scales = convert_scaled(result.vectors)
            found["scales"] = _tensor("F32", "<f4", scales)
        else:
            codes = convert(result.vectors, output_type, ranges)
        found["embeddings"] = _tensor(*_DTYPES[output_type], codes)
    if "multi_vector" in outputs:
        found["multi_vectors"] = _joined("F32", "<f4", result.multi_vectors)
        found["lengths"] = _lengths(result.multi_vectors)
    if "sparse" in outputs:
        indices, values = zip(*result.sparse, strict=True)
        found["sparse_indices"] = _joined("I32", "<i4", indices)
        found["sparse_values"] = _joined("F32", "<f4", values)
        found["sparse_lengths"] = _lengths(indices)
    return found


def serialize(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file. Like the reference implementation's, its header is filled up with spaces and wide dtypes come
    first, so that every tensor is aligned to its dtype. The bytes are copied once."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    parts: list[NDArray[Any]] = []
    end = 0
    for name, tensor in sorted(tensors.items(), key=lambda one: (-one[1].parts[0].itemsize, one[0])):
        begin, end = end, end + sum(part.nbytes for part in tensor.parts)
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (begin, end)}
        parts.extend(tensor.parts)
    words = orjson.dumps(header)
    words += b" " * (-len(words) % 8)
    return b"".join([len(words).to_bytes(8, "little"), words, *(part.data for part in parts)])


def _tensor(dtype: str, code: str, array: NDArray[Any]) -> Tensor:
    return Tensor(dtype, array.shape, [np.ascontiguousarray(array, dtype=code)])


def _joined(dtype: str, code: str, arrays: Seq[NDArray[Any]]) -> Tensor:
    """Arrays [length, ...] of one request, at least one, as one tensor [sum of lengths, ...]."""
    shape = (sum(map(len, arrays)), *arrays[0].shape[1:])
    return Tensor(dtype, shape, [np.ascontiguousarray(one, dtype=code) for one in arrays])


def _lengths(arrays: Seq[NDArray[Any]]) -> Tensor:
    return _tensor("I64", "<i8", np.array([len(one) for one in arrays]))
