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
import orjson
from numpy.typing import NDArray

from lemni.client.errors import BadAnswer
from lemni.client.wire import safetensors
from lemni.client.wire.http import JSON, HttpReply, HttpRequest, json_of
from lemni.client.wire.inputs import input_of
from lemni.client.wire.usage import Answer, number, tokens_of, truncated_of
from lemni.types import Item, SparseVector

Encoding: TypeAlias = Literal["raw", "base64", "float"]
"""How vectors travel: raw bytes where the server can (else base64), base64 of float32, or decimal numbers."""

Vectors: TypeAlias = NDArray[Any]

# Of `output_type`, as base64 has it; not float32 only where it is asked for.
_BYTES = {"float16": "<f2", "bfloat16": "<u2", "int8": "i1", "int8_scaled": "i1", "uint8": "u1", "binary": "i1"}
_BYTES["ubinary"] = "u1"


def request(items: Seq[Item], encoding: Encoding, options: Mapping[str, Any], path: str = "/embeddings") -> HttpRequest:
    """The request for vectors of `items`; `options` are fields of the body, those that are None are left out."""
    body = {
        "input": [item if type(item) is str else input_of(item) for item in items],
        **{name: value for name, value in options.items() if value is not None},
        "encoding_format": "float" if encoding == "float" else "base64",
    }
    accept = f"{safetensors.SAFETENSORS}, {JSON};q=0.9" if encoding == "raw" else JSON
    return HttpRequest(path, orjson.dumps(body), accept=accept)


def read_dense(reply: HttpReply, count: int, output_type: str | None = None) -> Answer:
    """Vectors [count, dim] in the order of the inputs. Raises BadAnswer."""
    if reply.media_type == safetensors.SAFETENSORS:
        tensors, metadata = safetensors.read(reply.body)
        vectors = tensors.get("embeddings")
        if vectors is None:
            raise BadAnswer(f"the server's answer has no embeddings, but {', '.join(tensors) or 'nothing'}")
        if (scales := tensors.get("scales")) is not None:
            vectors = vectors * scales[:, None]
        tokens = number(metadata.get("total_tokens"))
    else:
        content = json_of(reply)
        rows = [_row(row, place, output_type) for place, row in enumerate(_in_order(content, count))]
        if len({row.shape for row in rows}) > 1:
            raise BadAnswer(f"the server's vectors have different shapes: {sorted({row.shape for row in rows})}")
        vectors, tokens = np.stack(rows), tokens_of(content)
    if vectors.ndim != 2 or len(vectors) != count:
        raise BadAnswer(f"the server's answer has the shape {vectors.shape}; {count} vectors were asked for")
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
            if len(lengths) != count or lengths.sum() != len(flat) or (lengths < 0).any():
                raise BadAnswer(f"the server's answer has {len(lengths)} multi-vectors; {count} were asked for")
            rows = np.split(flat, np.cumsum(lengths)[:-1])
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
        if len(lengths) != count or not lengths.sum() == len(indices) == len(values):
            raise BadAnswer(f"the server's answer has {len(lengths)} sparse vectors; {count} were asked for")
        cuts = np.cumsum(lengths)[:-1]
        rows = [SparseVector(*pair) for pair in zip(np.split(indices, cuts), np.split(values, cuts), strict=True)]
        return Answer(rows, number(metadata.get("total_tokens")), truncated_of(reply))
    content = json_of(reply)
    rows = []
    for place, entry in enumerate(_entries(content, count)):
        try:
            found = entry["sparse_embedding"]
            pair = np.asarray(found["indices"], np.int32), np.asarray(found["values"], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise BadAnswer(f"data[{place}] of the server's answer has no sparse_embedding: {error!r}") from error
        rows.append(SparseVector(*pair))
    return Answer(rows, tokens_of(content), truncated_of(reply))


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


def _in_order(content: Any, count: int) -> list[Any]:
    rows = [entry.get("embedding") for entry in _entries(content, count)]
    if any(row is None for row in rows):
        raise BadAnswer("the server's answer has an entry without `embedding`")
    return rows


def _row(row: Any, place: int, output_type: str | None) -> Vectors:
    """One vector [dim] from base64 or numbers."""
    try:
        if isinstance(row, str):
            values = np.frombuffer(b64decode(row, validate=True), _BYTES.get(output_type or "", "<f4"))
            return (values.astype(np.uint32) << 16).view(np.float32) if output_type == "bfloat16" else values
        found = np.asarray(row, np.float32 if output_type in (None, "float32") else None)
        if found.ndim != 1 or not np.issubdtype(found.dtype, np.number):
            raise ValueError(f"an array of {found.dtype} with the shape {found.shape}")
    except (Base64Error, ValueError, TypeError) as error:
        raise BadAnswer(f"data[{place}].embedding of the server's answer is no vector: {error}", item=place) from error
    return found


def _matrix(entry: dict[str, Any], place: int, dim: int | None) -> NDArray[np.float32]:
    """One multi-vector [tokens, dim] from base64 (flat, with `shape` or `dim`) or numbers (nested, or flat)."""
    row = entry.get("embedding")
    try:
        if isinstance(row, str):
            flat = np.frombuffer(b64decode(row, validate=True), "<f4")
            shape = entry.get("shape")
            if shape is None and dim is None:
                raise ValueError("base64 without a shape; say how many dimensions the vectors have")
            return flat.reshape(shape if shape is not None else (-1, dim))
        found = np.asarray(row, np.float32)
        if found.ndim == 1 and dim is not None:
            found = found.reshape(-1, dim)
        if found.ndim != 2:
            raise ValueError(f"an array of the shape {found.shape}")
    except (Base64Error, ValueError, TypeError) as error:
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
