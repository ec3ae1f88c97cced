"""Where a request's time went."""

from __future__ import annotations

import time

from tests.engine.toy import Gate, ToyModel, engine_of, request

HELD_S = 0.2


def test_a_slow_pass_is_inference_and_what_waits_for_it_is_queued() -> None:
    model = ToyModel()
    model.gates[999] = gate = Gate()
    with engine_of(model) as engine:
        slow = engine.submit("toy", request("999"))
        gate.wait_entered()
        waiting = engine.submit("toy", request("1", "2"))
        time.sleep(HELD_S)
        gate.open()
        first, second = slow.result().timing, waiting.result().timing
    assert first.inference_s >= HELD_S > first.queue_s
    assert second.queue_s + second.tokenization_s >= HELD_S > second.inference_s
    assert min(*first, *second) >= 0
