"""The alarm: functions run at their time, in order, from a thread that survives them."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from lemni.engine.alarm import MANY_CANCELLED, Alarm
from tests.engine.toy import PATIENCE_S


@pytest.fixture
def alarm() -> Iterator[Alarm]:
    alarm = Alarm()
    alarm.start()
    yield alarm
    alarm.close()
    alarm._thread.join(PATIENCE_S)
    assert not alarm._thread.is_alive()


def test_an_earlier_time_set_later_rings_first(alarm: Alarm) -> None:
    rung: SimpleQueue[str] = SimpleQueue()
    alarm.after(0.5, lambda: rung.put("later"))
    alarm.after(0.01, lambda: rung.put("sooner"))
    assert [rung.get(timeout=PATIENCE_S) for _ in range(2)] == ["sooner", "later"]


def test_what_is_cancelled_does_not_ring(alarm: Alarm) -> None:
    rung: SimpleQueue[str] = SimpleQueue()
    entry = alarm.after(0.2, lambda: rung.put("cancelled"))
    alarm.after(0.25, lambda: rung.put("kept"))
    alarm.cancel(entry)
    alarm.cancel(entry)
    assert rung.get(timeout=PATIENCE_S) == "kept"
    assert rung.empty()


def test_a_function_that_fails_does_not_stop_the_alarm(alarm: Alarm, caplog: pytest.LogCaptureFixture) -> None:
    rung = threading.Event()

    def fail() -> None:
        raise SystemExit("no")

    alarm.after(0.001, fail)
    alarm.after(0.002, rung.set)
    assert rung.wait(PATIENCE_S)
    assert "an alarm failed" in caplog.text


def test_what_has_rung_is_let_go_while_the_alarm_waits(alarm: Alarm) -> None:
    class Request:
        rung = threading.Event()

        def ring(self) -> None:
            self.rung.set()

    gone = threading.Event()
    request = Request()
    weakref.finalize(request, gone.set)
    alarm.after(3600.0, lambda: None)
    alarm.after(0.001, request.ring)
    assert request.rung.wait(PATIENCE_S)
    del request
    assert gone.wait(5.0)


def test_cancelled_entries_do_not_pile_up(alarm: Alarm) -> None:
    for _ in range(10 * MANY_CANCELLED):
        alarm.cancel(alarm.after(3600.0, lambda: None))
    assert len(alarm._heap) <= 2 * MANY_CANCELLED + 2


def test_forever_is_a_time_too(alarm: Alarm) -> None:
    rung = threading.Event()
    alarm.after(float("inf"), lambda: None)
    alarm.after(0.001, rung.set)
    assert rung.wait(PATIENCE_S)
