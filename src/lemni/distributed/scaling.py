"""How many replicas a model of Ray Serve gets: by the tokens that wait for it, which is what its answers wait for.

Requests in flight, Serve's own measure, count a query of ten tokens and a batch of ten thousand alike.
"""

from __future__ import annotations

import math
from typing import Any

_FALL = 0.75


class ByQueuedTokens:
    """A policy of Ray Serve (`AutoscalingConfig.policy`); delays and bounds are Serve's.

    Args:
        target: tokens that may wait per replica before there is another one.
    """

    def __init__(self, target: float) -> None:
        self._target = target

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """The wanted number of replicas, and nothing to remember."""
        found = (context.aggregated_metrics or {}).get("queued_tokens", {})
        waiting = sum(found.values())
        # Requests that Serve itself holds back have not been counted in tokens by anybody.
        busy = 1 if context.total_num_requests else 0
        wanted = max(math.ceil(waiting / self._target), busy)
        if busy and wanted < context.current_num_replicas:
            # An empty queue may be what these replicas have made of it: go down by a quarter, and see.
            wanted = max(wanted, math.ceil(context.current_num_replicas * _FALL))
            wanted = min(wanted, context.current_num_replicas - 1)
        return min(max(wanted, context.capacity_adjusted_min_replicas), context.capacity_adjusted_max_replicas), {}
