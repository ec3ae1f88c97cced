"""Slots: as many at once as there are, in the order of asking, and never lost."""

from __future__ import annotations

import threading
from queue import SimpleQueue

from lemni.engine.slots import Slots
from tests.engine.toy import PATIENCE_S


def queue_up(slots: Slots, name: str, got: SimpleQueue[tuple[str, object]]) -> threading.Thread:
    """A thread that waits in `slots`; returns once it stands in the queue."""
    before = len(slots._queue)
    thread = threading.Thread(target=lambda: got.put((name, slots.acquire())), daemon=True)
    thread.start()
    while len(slots._queue) == before and thread.is_alive():
        thread.join(0.001)
    return thread


def test_first_come_first_served() -> None:
    slots = Slots(2)
    held = [slots.acquire(), slots.acquire()]
    got: SimpleQueue[tuple[str, object]] = SimpleQueue()
    for name in "abc":
        queue_up(slots, name, got)
    assert got.empty()
    for name in "abc":
        held.pop().release()
        came, slot = got.get(timeout=PATIENCE_S)
        assert came == name
        held.append(slot)
    for slot in held:
        slot.release()
    assert slots._free == 2


def test_releasing_twice_frees_one() -> None:
    slots = Slots(1)
    slot = slots.acquire()
    slot.release()
    slot.release()
    slots.acquire()
    got: SimpleQueue[tuple[str, object]] = SimpleQueue()
    queue_up(slots, "second", got)
    assert got.empty()
    slots.close()
    assert got.get(timeout=PATIENCE_S)[0] == "second"


def test_closed_slots_let_everybody_through() -> None:
    slots = Slots(1)
    slots.acquire()
    slots.close()
    slots.acquire()
