"""The bar of a bulk job: rows, rows per second, tokens per second, time left, and what it has cost so far."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass
from typing import Any

from lemni.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Price:
    """What the machine costs, in whatever currency, per hour."""

    per_hour: float

    def __post_init__(self) -> None:
        if not self.per_hour >= 0:
            raise ConfigError(f"price_per_hour is {self.per_hour}; it must be at least 0")

    def of(self, seconds: float) -> float:
        return self.per_hour * seconds / 3600


class Progress:
    """Thread-safe. Rows that an earlier run did count as done, but not for the rates."""

    def __init__(self, total: int | None, done: int, *, show: bool | None, price: Price | None = None) -> None:
        from tqdm import tqdm

        visible = sys.stderr.isatty() if show is None else show
        self._bar: Any = tqdm(
            total=total,
            initial=done,
            unit=" rows",
            unit_scale=True,
            disable=not visible,
            file=sys.stderr,
            smoothing=0.1,
            dynamic_ncols=True,
        )
        self._price = price
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._tokens = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._started

    def passed(self, rows: int, tokens: int) -> None:
        """A forward pass is done."""
        with self._lock:
            self._tokens += tokens
            said = f"{self._tokens / max(self.seconds, 1e-9):,.0f} tokens/s"
            if self._price is not None:
                said += f", cost {self._price.of(self.seconds):.4f}"
            self._bar.set_postfix_str(said, refresh=False)
            self._bar.update(rows)

    def skipped(self, rows: int) -> None:
        """Rows that needed no pass of their own; less than none where rows were several sequences each."""
        with self._lock:
            self._bar.update(rows)

    def close(self) -> None:
        self._bar.close()
