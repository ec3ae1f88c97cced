"""Vectors in the encodings that dialects name (float, base64, int8, binary ...), and the int8 ranges of served models.

Ranges are measured when somebody first asks for int8 or uint8, once per model, through the engine and behind all
interactive work; `lemni.tasks.ranges` keeps them in the cache folder. They are those of texts without a prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lemni.engine import Engine
from lemni.hub.cache import DEFAULT_DIR
from lemni.server.inputs import lower
from lemni.server.rows import base64_rows, float_rows, off_the_loop
from lemni.tasks.output_types import OutputType, convert, needs_ranges
from lemni.tasks.ranges import Ranges, calibrate, calibration_request, key_of
from lemni.types import ModelCard, Options

if TYPE_CHECKING:
    from lemni.server.call import Call


class Wire(NamedTuple):
    """One form of vectors on the wire: their number type, and whether its bytes come as base64 or as numbers."""

    output_type: OutputType
    base64: bool = False


WIRES = {
    "float": Wire("float32"),
    "base64": Wire("float32", base64=True),
    "float16": Wire("float16"),
    "int8": Wire("int8"),
    "uint8": Wire("uint8"),
    "binary": Wire("binary"),
    "ubinary": Wire("ubinary"),
}
"""What the names of encodings mean, in all dialects."""


def words(value: Any) -> Any:
    """A word or a list of words as a list of words in lower case; anything else as it is. For a validator."""
    values = [value] if isinstance(value, str) else value
    return [lower(one) for one in values] if isinstance(values, list) else values


async def written(
    call: Call,
    card: ModelCard,
    options: Options,
    vectors: NDArray[np.float32],
    wires: Seq[Wire],
    write: Callable[..., bytes],
) -> bytes:
    """`write(rows, ...)` with the JSON of each row in each of the forms: one list of bytes per form.

    Args:
        options: those that `vectors` [n, dim] were asked for with.
        write: makes the answer; runs in a thread where there is much to write.

    Raises what the engine raises while it measures ranges.
    """
    ranges = await ranges_for(call, card, options, [wire.output_type for wire in wires])

    def write_all() -> bytes:
        return write(*(list(_rows(vectors, wire, ranges)) for wire in wires))

    return await off_the_loop(vectors.nbytes * len(wires), write_all)


async def ranges_for(
    call: Call, card: ModelCard, options: Options, output_types: Seq[OutputType]
) -> NDArray[np.float32] | None:
    """float32 [2, dimensions] for the vectors that `options` asked for; None if none of the types needs ranges.

    Raises what the engine raises while it measures them.
    """
    if not any(map(needs_ranges, output_types)):
        return None
    assert call.service.engine is not None  # it gave the vectors
    return await call.service.ranges.of(card, options, call.service.engine)


def _rows(vectors: NDArray[np.float32], wire: Wire, ranges: NDArray[np.float32] | None) -> Iterable[bytes]:
    converted = convert(vectors, wire.output_type, ranges)
    return (base64_rows if wire.base64 else float_rows)(converted, wire.output_type)


class MeasuredRanges:
    """The int8 ranges of all served models. Of one event loop.

    Args:
        cache_dir: they are kept in a folder of it; Lemni's own cache if not given.
    """

    def __init__(self, cache_dir: Path | None) -> None:
        self._ranges = Ranges((cache_dir or DEFAULT_DIR).expanduser())
        self._locks: dict[str, asyncio.Lock] = {}

    async def of(self, card: ModelCard, options: Options, engine: Engine) -> NDArray[np.float32]:
        """float32 [2, dimensions] for the vectors that `options` asks for; measured first, if nobody has.

        Raises what the engine raises.
        """
        async with self._locks.setdefault(card.name, asyncio.Lock()):
            key = key_of(card)
            found = await asyncio.to_thread(self._ranges.of, key, card, options)
            if found is None:
                measured = await engine.embed(card.name, calibration_request())
                await asyncio.to_thread(self._ranges.put, key, calibrate(lambda _: measured.vectors))
                found = await asyncio.to_thread(self._ranges.of, key, card, options)
            assert found is not None
            return found
