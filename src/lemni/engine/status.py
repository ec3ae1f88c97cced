"""What a served model has done and is doing, as numbers: for readiness, metrics and `lemni models`."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, fields
from typing import Any

from lemni.errors import LemniError
from lemni.types import Result


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """A snapshot. Counts are since start.

    Attributes:
        replicas_alive: of `replicas_total`.
        waiting_tokens: in the queue, estimated where not tokenised yet; at most about `max_queue_tokens`.
        max_queue_tokens: bound of the queue, as set.
        waiting_sequences: distinct, tokenised, not in a forward pass.
        running_sequences: distinct, in a forward pass or on their way out of it.
        open_requests: admitted and not ended.
        requests: admitted; every one ends as exactly one of `completed`, `failed` and `cancelled`.
        items: of the admitted requests.
        tokens: computed, by completed requests' own count.
        deduplicated: sequences that shared the computation of an identical one in flight.
        truncated: items that lost tokens.
        errors: error code to number of failed and refused requests.
        batches: forward passes that succeeded.
        batch_tokens: tokens of those.
        batch_sizes: largest tokens of the bucket (a power of two) to number of batches.
        tokens_per_s: recent speed of one replica while it computes; 0 if nothing ran yet.
    """

    replicas_alive: int
    replicas_total: int
    waiting_tokens: int
    max_queue_tokens: int
    waiting_sequences: int
    running_sequences: int
    open_requests: int
    requests: int
    completed: int
    failed: int
    cancelled: int
    items: int
    tokens: int
    deduplicated: int
    truncated: int
    errors: dict[str, int]
    batches: int
    batch_tokens: int
    batch_sizes: dict[int, int]
    tokens_per_s: float


@dataclass(slots=True)
class Counters:
    """The running totals; the owner's lock guards them."""

    requests: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    items: int = 0
    tokens: int = 0
    deduplicated: int = 0
    truncated: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    batch_tokens: int = 0
    batch_sizes: Counter[int] = field(default_factory=Counter)
    tokens_per_s: float = 0.0

    def snapshot(self) -> dict[str, Any]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: dict(value) if isinstance(value, Counter) else value for name, value in values.items()}

    def ended(self, outcome: Result | LemniError | None) -> None:
        """An admitted request ended; None: cancelled."""
        if outcome is None:
            self.cancelled += 1
        elif isinstance(outcome, LemniError):
            self.failed += 1
            self.errors[outcome.code] += 1
        else:
            self.completed += 1
            self.tokens += int(outcome.token_counts.sum())
            self.truncated += len(outcome.truncated)

    def ran(self, tokens: int, seconds: float | None) -> None:
        """A forward pass succeeded; without seconds it does not count for the speed."""
        self.batches += 1
        self.batch_tokens += tokens
        self.batch_sizes[1 << (tokens - 1).bit_length()] += 1
        if seconds is None:
            return
        speed = tokens / max(seconds, 1e-6)
        self.tokens_per_s = speed if not self.tokens_per_s else 0.8 * self.tokens_per_s + 0.2 * speed
