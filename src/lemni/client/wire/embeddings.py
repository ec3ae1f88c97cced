"""`/embeddings` of the OpenAI API, as Lemni, Infinity, vLLM, TEI and others serve it: requests, and answers as arrays.

Lemni answers with raw bytes, because the request accepts them; others with base64 or with numbers, and all are read.
"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lemni.client.errors import BadAnswer
from lemni.client.wire import safetensors
from lemni.client.wire.http import JSON, HttpReply, HttpRequest, json_of
from lemni.client.wire.inputs import input_of, json_bytes
from lemni.client.wire.usage import Answer, number, tokens_of, truncated_of
from lemni.types import Item, SparseVector

Encoding: TypeAlias = Literal["raw", "base64", "float"]
"""How vectors travel: raw bytes where the server can (else base64), base64 of float32, or decimal numbers."""

Vectors: TypeAlias = NDArray[Any]

# Of `output_type`, as base64 has it; not float32 only where it is asked for.
_BYTES = {"float16": "<f2", "bfloat16": "<u2", "int8": "i1", "int8_scaled": "i1", "uint8": "u1", "binary": "i1"}
_BYTES["ubinary"] = "u1"
# The same as numbers in JSON.
_NUMBERS = {**_BYTES, "bfloat16": "<f4"}


def request(items: Seq[Item], encoding: Encoding, options: Mapping[str, Any], path: str = "/embeddings") -> HttpRequest:
    """The request for vectors of `items`; `options` are fields of the body, those that are None are left out."""
    body = {
        "input": [item if type(item) is str else input_of(item) for item in items],
        **{name: value for name, value in options.items() if value is not None},
        "encoding_format": "float" if encoding == "float" else "base64",
    }
    accept = f"{safetensors.SAFETENSORS}, {JSON};q=0.9" if encoding == "raw" else JSON
    return HttpRequest(path, json_bytes(body), accept=accept)


def read_dense(reply: HttpReply, count: int, output_type: str | None = None) -> Answer:
    """Vectors [count, dim] in the order of the inputs. Raises BadAnswer."""
    if reply.media_type == safetensors.SAFETENSORS:
        tensors, metadata = safetensors.read(reply.body)
        vectors = tensors.get("embeddings")
        if vectors is None:
            if "multi_vectors" in tensors:
                raise BadAnswer(
                    "the model gives multi-vectors, several for each input: ask for them with multi_vector()"
                )
            raise BadAnswer(f"the server's answer has no embeddings, but {', '.join(tensors) or 'nothing'}")
        scales = tensors.get("scales")
        tokens = number(metadata.get("total_tokens"))
    else:
        content = json_of(reply)
        entries = _entries(content, count)
        rows = [_row(entry.get("embedding"), place, output_type) for place, entry in enumerate(entries)]
        if len({row.shape for row in rows}) > 1:
            raise BadAnswer(f"the server's vectors have different shapes: {sorted({row.shape for row in rows})}")
        vectors, tokens = np.stack(rows), tokens_of(content)
        scales = _scales(entries) if output_type == "int8_scaled" else None
    if vectors.ndim != 2 or len(vectors) != count or not vectors.shape[1]:
        raise BadAnswer(f"the server's answer has the shape {vectors.shape}; {count} vectors were asked for")
    if scales is not None:
        if scales.shape != (count,):
            raise BadAnswer(f"the server's answer has scales of the shape {scales.shape} for {count} vectors")
        vectors = vectors * scales[:, None]
    _check_finite(vectors)
    return Answer(vectors, tokens, truncated_of(reply))


def read_multi(reply: HttpReply, count: int, dim: int | None = None) -> Answer:
    """`count` multi-vectors, float32 [tokens, dim] each.

    `dim` is for servers that send base64 without a shape (Infinity). Raises BadAnswer.
    """
    if reply.media_type == safetensors.SAFETENSORS:
        tensors, metadata = safetensors.read(reply.body)
        try:
            flat, lengths = tensors["multi_vectors"], tensors["lengths"]
            if flat.ndim != 2:
                raise BadAnswer(f"the server's multi-vectors have the shape {flat.shape}")
            rows = np.split(flat, _cuts(lengths, count, len(flat), "multi-vectors"))
        except KeyError as error:
            raise BadAnswer(f"the server's answer has no {error}, but {', '.join(tensors) or 'nothing'}") from error
        tokens = number(metadata.get("total_tokens"))
    else:
        content = json_of(reply)
        rows = [_matrix(entry, place, dim) for place, entry in enumerate(_entries(content, count))]
        tokens = tokens_of(content)
    for place, row in enumerate(rows):
        _check_finite(row, place)
    return Answer(rows, tokens, truncated_of(reply))


def read_sparse(reply: HttpReply, count: int) -> Answer:
    """`count` SparseVectors. Raises BadAnswer."""
    if reply.media_type == safetensors.SAFETENSORS:
        tensors, metadata = safetensors.read(reply.body)
        try:
            indices, values, lengths = (tensors[f"sparse_{name}"] for name in ("indices", "values", "lengths"))
        except KeyError as error:
            raise BadAnswer(f"the server's answer has no {error}, but {', '.join(tensors) or 'nothing'}") from error
        cuts = _cuts(lengths, count, len(np.atleast_1d(values)), "sparse vectors")
        if indices.ndim != 1 or indices.shape != values.shape or indices.dtype.kind not in "iu":
            shapes = f"{indices.dtype} {indices.shape} and {values.dtype} {values.shape}"
            raise BadAnswer(f"the server's sparse vectors are {shapes}; they must be integers and as many numbers")
        rows = [SparseVector(*pair) for pair in zip(np.split(indices, cuts), np.split(values, cuts), strict=True)]
        tokens = number(metadata.get("total_tokens"))
    else:
        content = json_of(reply)
        rows = [_terms(entry, place) for place, entry in enumerate(_entries(content, count))]
        tokens = tokens_of(content)
    for place, row in enumerate(rows):
        _check_finite(row.values[None], place)
    return Answer(rows, tokens, truncated_of(reply))


def _cuts(lengths: Vectors, count: int, total: int, name: str) -> Vectors:
    """Where `total` rows are cut into `count` parts of these lengths."""
    if lengths.shape != (count,) or lengths.dtype.kind not in "iu":
        raise BadAnswer(f"the server's answer has {len(np.atleast_1d(lengths))} {name}; {count} were asked for")
    if (lengths < 0).any() or lengths.sum() != total:
        raise BadAnswer(f"the lengths of the server's {name} do not sum to the {total} rows that came")
    cuts: Vectors = np.cumsum(lengths)[:-1]
    return cuts


def _terms(entry: dict[str, Any], place: int) -> SparseVector:
    try:
        found = entry["sparse_embedding"]
        indices, values = np.asarray(found["indices"]), np.asarray(found["values"], np.float32)
        if indices.ndim != 1 or indices.shape != values.shape or (len(indices) and indices.dtype.kind not in "iu"):
            raise ValueError(f"{indices.dtype} {indices.shape} and {values.dtype} {values.shape}")
        return SparseVector(indices.astype(np.int32), values)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise BadAnswer(
            f"data[{place}].sparse_embedding of the server's answer is none: {error!r}", item=place
        ) from error


def _scales(entries: list[dict[str, Any]]) -> NDArray[np.float32]:
    try:
        return np.asarray([entry["scale"] for entry in entries], np.float32)
    except (KeyError, TypeError, ValueError) as error:
        raise BadAnswer(f"an entry of the server's answer has no scale for its 8-bit vector: {error!r}") from error


def _entries(content: Any, count: int) -> list[dict[str, Any]]:
    """The entries of `data` in the order of the inputs, by their `index` where they have one."""
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
        raise BadAnswer("the server's answer has no list `data` of objects")
    if len(data) != count:
        raise BadAnswer(f"the server's answer has {len(data)} entries; {count} were asked for")
    places = [entry.get("index") for entry in data]
    if all(place is None for place in places) or places == list(range(count)):
        return data
    if not all(type(place) is int for place in places) or sorted(places) != list(range(count)):
        raise BadAnswer(f"the indices in the server's answer are not those of {count} inputs")
    return sorted(data, key=lambda entry: int(entry["index"]))


def _row(row: Any, place: int, output_type: str | None) -> Vectors:
    """One vector [dim] from base64 or numbers."""
    try:
        if row is None:
            raise ValueError("it is not there")
        if isinstance(row, str):
            values = np.frombuffer(b64decode(row, validate=True), _BYTES.get(output_type or "", "<f4"))
            return (values.astype(np.uint32) << 16).view(np.float32) if output_type == "bfloat16" else values
        found = np.asarray(row, _NUMBERS.get(output_type or "", "<f4"))
        if found.ndim != 1:
            raise ValueError(f"an array of the shape {found.shape}")
    except (Base64Error, ValueError, TypeError, OverflowError) as error:
        raise BadAnswer(f"data[{place}].embedding of the server's answer is no vector: {error}", item=place) from error
    return found


def _matrix(entry: dict[str, Any], place: int, dim: int | None) -> NDArray[np.float32]:
    """One multi-vector [tokens, dim] from base64 (flat, with `shape` or `dim`) or numbers (nested, or flat)."""
    row = entry.get("embedding")
    try:
        if isinstance(row, str):
            flat = np.frombuffer(b64decode(row, validate=True), "<f4").copy()  # which the caller can change
            shape = entry.get("shape")
            if shape is None and dim is None:
                raise ValueError("base64 without a shape; say how many dimensions the vectors have")
            found: NDArray[np.float32] = flat.reshape(shape if shape is not None else (-1, dim))
        else:
            found = np.asarray(row, np.float32)
            if found.ndim == 1 and dim is not None:
                found = found.reshape(-1, dim)
        if found.ndim != 2:
            raise ValueError(f"an array of the shape {found.shape}")
    except (Base64Error, ValueError, TypeError, OverflowError) as error:
        raise BadAnswer(
            f"data[{place}].embedding of the server's answer is no multi-vector: {error}", item=place
        ) from error
    return found


def _check_finite(values: Vectors, place: int | None = None) -> None:
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
    item = row if place is None else place
    raise BadAnswer(f"the server's vector of input {item} has NaN or infinity in it", item=item)
