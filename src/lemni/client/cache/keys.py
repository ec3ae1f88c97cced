"""The name of a vector in the cache: a digest of everything that the vector depends on.

Two different sets of options, or two different inputs, never share a key: each value is written with its type and its
length before it is hashed. Texts themselves are not in the key, so a shared Redis does not show them.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence

from lemni.errors import InvalidRequest

KEY_BYTES = 32
# Part of every key: a change to what is hashed, or to what a vector means, must not find the old ones.
_VERSION = b"lemni-embedding-1\0"


class Keys:
    """Makes the keys of many inputs with the same options; these are hashed only once. Thread-safe.

    Args:
        server: where the vector comes from, such as the provider and its URL: two servers may disagree about a name.
        model: the model's name there.
        revision: its revision, if one was asked for.
        task: what is computed: "dense", "multi_vector", "sparse" ...
        prompt: the prompt, or the name of one, that the model puts before a text.
        dimensions: to what the vector was cut.
        more: further options that change the vector, such as normalising, encoding or the kind of input.

    Raises:
        InvalidRequest: an option is not made of None, booleans, numbers, text, bytes, lists and mappings.
    """

    def __init__(
        self,
        *,
        server: str,
        model: str,
        revision: str | None,
        task: str,
        prompt: str | None,
        dimensions: int | None,
        more: Mapping[str, object],
    ) -> None:
        fields = (server, model, revision, task, prompt, dimensions, more)
        self._options = hashlib.sha256(_VERSION + b"".join(map(encode, fields)))

    def __call__(self, item: object) -> bytes:
        """The key of one input, a text or the bytes of an image (or a list of token ids): 32 bytes."""
        digest = self._options.copy()
        digest.update(encode(item))
        return digest.digest()


def key_of(
    *,
    server: str,
    model: str,
    revision: str | None,
    task: str,
    prompt: str | None,
    dimensions: int | None,
    more: Mapping[str, object],
    item: object,
) -> bytes:
    """The key of one input; see `Keys`, which is faster for many."""
    return Keys(
        server=server, model=model, revision=revision, task=task, prompt=prompt, dimensions=dimensions, more=more
    )(item)


def encode(value: object) -> bytes:
    """A value as bytes that tell where it ends, after a letter for its type; a list and a tuple are the same.

    1, 1.0, True and "1" differ; the order of a mapping's keys does not matter. The format is that of netstrings, with
    the type in front: https://cr.yp.to/proto/netstrings.txt
    """
    if isinstance(value, str):
        # Lone surrogates are legal in a Python string.
        return _frame(b"s", value.encode("utf-8", "surrogatepass"))
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _frame(b"b", bytes(value))
    if value is None:
        return b"n"
    if isinstance(value, bool):  # before int, which it is as well
        return b"t" if value else b"f"
    if isinstance(value, int):
        return _frame(b"i", b"%d" % value)
    if isinstance(value, float):
        return b"d" + struct.pack(">d", value)
    if isinstance(value, Mapping):
        return _frame(b"m", b"".join(sorted(encode(key) + encode(held) for key, held in value.items())))
    if isinstance(value, Sequence):
        return _frame(b"l", b"".join(map(encode, value)))
    raise InvalidRequest(f"a {type(value).__name__} cannot be part of a cache key: {value!r}")


def _frame(kind: bytes, data: bytes) -> bytes:
    return b"%s%d:%s" % (kind, len(data), data)
