"""Internal failures: the text goes to the log under an id, the caller gets the id."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from lemni.errors import InternalError, InvalidOutput, LemniError, Unavailable
from lemni.types import Outputs

log = logging.getLogger("lemni.engine")

Failure: TypeAlias = Callable[[int | None], LemniError]
"""Makes a wanter's own error: takes the index of its item. Two requests never share one exception."""


def internal(cause: BaseException, doing: str) -> Failure:
    """Log `cause` once, with its traceback."""
    ident = uuid.uuid4().hex[:12]
    log.error("%s failed (error %s)", doing, ident, exc_info=cause)

    def error(item: int | None) -> LemniError:
        where = "" if item is None else f" at item {item}"
        made = InternalError(f"internal error {ident}{where}; the server's log has its text", item=item)
        made.__cause__ = cause
        return made

    return error


def invalid_output(item: int | None) -> LemniError:
    return InvalidOutput(f"the model computed NaN or infinity for item {item}", item=item)


def lost_twice(item: int | None) -> LemniError:
    return Unavailable(f"two replicas of the model died while they computed item {item}", item=item)


def is_finite(row: Outputs) -> bool:
    """Whether no output of the row has a NaN or an infinity."""
    return all(bool(np.isfinite(array).all()) for array in row.values())
