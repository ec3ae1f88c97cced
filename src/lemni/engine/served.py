"""One served model: its queue and its requests, under one lock. Everything that happens to a request happens here.

Callers submit and cancel; tokenizer threads `add` sequences; replicas `take` batches and bring them back through
`complete`, `fail` or `requeue`; the alarm ends what is too late. Whoever gets to end a job first *claims* it
under the lock and resolves its future outside of it, so a request ends exactly once and callbacks may call back.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from lemni.config import EngineSettings
from lemni.engine import failures
from lemni.engine.alarm import Alarm
from lemni.engine.failures import Failure, log
from lemni.engine.job import Handle, Job
from lemni.engine.model import Model
from lemni.engine.scheduler import Flow, Scheduler, Work
from lemni.engine.status import Counters, ModelStatus
from lemni.engine.tokenizing import Tokenizers
from lemni.errors import DeadlineExceeded, InvalidRequest, LemniError, Overloaded, RequestCancelled, Unavailable
from lemni.types import Outputs, Request, Result, Sequence

_MIB = 1 << 20


class ServedModel:
    def __init__(self, name: str, model: Model, settings: EngineSettings, tokenizers: Tokenizers, alarm: Alarm) -> None:
        self.name = name
        self.model = model
        self._settings = settings
        self._tokenizers = tokenizers
        self._alarm = alarm
        self._lock = threading.Lock()
        self._work = threading.Condition(self._lock)  # replicas wait here
        self._beside = threading.Condition(self._lock)  # the express lane waits here
        self._long_passes = 0  # forward passes under way that small requests would have to wait for
        self._express = 0  # replicas of the lane; one that hangs may have a successor
        self._quiet = threading.Condition(self._lock)  # drain waits here
        self._scheduler = Scheduler(settings.max_queue_tokens, settings.interactive_weight)
        self._jobs: dict[Flow, Job] = {}
        self._held_bytes = 0  # vectors per token of the open requests, as estimated
        self._open = 0  # admitted, and the future not resolved
        self._outage: str | None = "the engine is not started"  # why no replica can answer soon
        self._refusal: str | None = None  # why new requests are refused for good
        self._closed = False
        self._replicas_alive = 0
        self._replicas_total = 0
        self._counters = Counters()

    # From the caller

    def submit(self, request: Request) -> Handle:
        """Admit a request. Raises what is wrong with it, Overloaded, or Unavailable."""
        try:
            estimates, deadline_s = self._examine(request)
            job = self._admit(request, estimates, deadline_s)
        except LemniError as error:
            with self._lock:
                self._counters.errors[error.code] += 1
            raise
        self._tokenizers.add(job)
        return job.handle

    def _examine(self, request: Request) -> tuple[list[int], float]:
        if not len(request.items):
            raise InvalidRequest(f"{request.field} is empty: it must hold at least one item", param=request.field)
        deadline_s = self._settings.request_timeout_s if request.deadline_s is None else request.deadline_s
        if not deadline_s > 0:
            raise DeadlineExceeded(f"deadline_s is {deadline_s:g}: the request is too late before it starts")
        try:
            self.model.validate(request)
            estimates = self._estimates(request)
        except LemniError:
            raise
        except Exception as cause:
            raise failures.internal(cause, "validating a request")(None) from cause
        bound = self._settings.max_queue_tokens
        result, most = self._result_bytes(request, estimates), self._settings.max_result_mib * _MIB
        if result > most:
            raise InvalidRequest(
                f"the vectors of all tokens would have about {result / _MIB:.0f} MiB; a request may have "
                f"{most / _MIB:g} (max_result_mib): send it in parts",
                param=request.field,
            )
        if sum(estimates) > bound:
            raise InvalidRequest(
                f"the request has about {sum(estimates)} tokens; the whole queue takes {bound} (max_queue_tokens): "
                "send it in parts",
                param=request.field,
            )
        return estimates, deadline_s

    def _estimates(self, request: Request) -> list[int]:
        estimates: list[int] = []
        for item in request.items:
            try:
                estimates.append(self.model.estimate_tokens(item, request))
            except LemniError as error:
                error.item = request.first_item + len(estimates)
                _name_item(error, request)
                raise
        return estimates

    def _admit(self, request: Request, estimates: list[int], deadline_s: float) -> Job:
        tokens = sum(estimates)
        weight = self._settings.interactive_weight if request.priority == "interactive" else 1
        job = Job(self, request, estimates, weight, deadline_s)
        result_bytes = self._result_bytes(request, estimates)
        with self._lock:
            if refusal := self._refusal or self._outage:
                raise Unavailable(refusal)
            if result_bytes and self._held_bytes + result_bytes > self._settings.max_result_mib * _MIB:
                raise Overloaded("the vectors per token of other requests take all of max_result_mib; retry soon")
            if excess := self._scheduler.excess(tokens):
                raise self._overloaded(tokens, excess)
            job.flow = self._scheduler.admit(tokens, request.priority)
            job.deadline = self._alarm.after(deadline_s, lambda: self._expire(job))
            self._jobs[job.flow] = job
            job.result_bytes = result_bytes
            self._held_bytes += result_bytes
            self._open += 1
            self._counters.requests += 1
            self._counters.items += len(estimates)
        return job

    def _result_bytes(self, request: Request, estimates: list[int]) -> int:
        """Of an answer with a vector per token, about; others are small."""
        if not {"tokens", "multi_vector"} & set(request.tasks):
            return 0
        return 4 * sum(estimates) * (self.model.card.dimensions or 0)

    def _overloaded(self, tokens: int, excess: int) -> Overloaded:
        speed = self._counters.tokens_per_s * max(1, self._replicas_alive)
        retry_after_s = min(60.0, max(0.05, excess / speed)) if speed else 1.0
        return Overloaded(
            f"the queue holds {self._scheduler.waiting_tokens} of {self._scheduler.max_tokens} tokens and the "
            f"request has about {tokens}; retry in {retry_after_s:.2g} s",
            retry_after_s=retry_after_s,
        )

    def cancel(self, job: Job) -> None:
        """The caller has cancelled the job's future."""
        self.end(job, RequestCancelled("the caller went away"))

    # From the tokenizers

    def add(self, job: Job, first: int, outcomes: list[list[Sequence] | LemniError], estimate: int) -> None:
        """The items from `first` on are tokenised; `estimate` tokens were reserved for them."""
        tokenized: list[tuple[int, list[Sequence]]] = []
        for index, outcome in enumerate(outcomes, first):
            if isinstance(outcome, LemniError):
                self.end(job, outcome)
                return
            tokenized.append((index, outcome))
        parts = [((index, part), one) for index, sequences in tokenized for part, one in enumerate(sequences)]
        wanted = [(place, sequence, sequence.key) for place, sequence in parts if sequence.outputs]
        now = time.monotonic()
        with self._lock:
            if job.ended:
                return
            for index, sequences in tokenized:
                job.tokenized(index, sequences, now)
            self._counters.deduplicated += self._scheduler.add(job.flow, wanted, estimate)
            self._work.notify_all()
            if self._long_passes:
                self._beside.notify_all()
            # What asks for no output is complete as it is.
            last = [job.fill(place, {}, now, now) for place, sequence in parts if not sequence.outputs]
            done = any(last) and self._claim(job)
        if done:
            self._settle(job, job.finish)

    # From the replicas

    def wait_for_work(self) -> bool:
        """Sleep until something waits. Returns False when the engine closes."""
        with self._lock:
            while not self._scheduler.waiting and not self._closed:
                self._work.wait()
            return not self._closed

    def take(self, budget: int, enough: int) -> list[Work]:
        """The next batch; empty if somebody else took what waited."""
        with self._lock:
            works = [] if self._closed else self._scheduler.take(budget, enough, short=not self._express)
            return _stamped(works)

    def begin_pass(self, works: list[Work], enough: int) -> bool:
        """A replica computes what it took. Returns whether small requests would have to wait for it."""
        with self._lock:
            long = self._scheduler.is_long(works, enough)
            if long:
                self._long_passes += 1
                self._beside.notify_all()
            return long

    def end_long_pass(self) -> None:
        """One that `begin_pass` said is long has ended, or its replica is dead."""
        with self._lock:
            self._long_passes -= 1

    def take_beside(self, budget: int, enough: int) -> list[Work]:
        """Sleep until a small request waits while every replica is in a long pass, and take such requests. Empty when
        the engine closes."""
        with self._lock:
            while not self._closed:
                if self._all_in_long_passes() and (works := self._scheduler.take_small(budget, enough)):
                    return _stamped(works)
                self._beside.wait()
            return []

    def wait_for_meeting(self, enough: int) -> bool:
        """Sleep until every replica is in a long pass and small requests come or came. Returns False when the engine
        closes."""
        with self._lock:
            while not self._closed:
                if self._all_in_long_passes() and self._scheduler.knows_small(enough):
                    return True
                self._beside.wait()
            return False

    def count_express(self, change: int) -> None:
        """An express replica has begun or ended; while there is one, large requests fill their passes."""
        with self._lock:
            self._express += change

    def _all_in_long_passes(self) -> bool:
        return self._long_passes >= max(1, self._replicas_alive)

    def still_wanted(self, works: list[Work]) -> list[Work]:
        """Those of running works whose row somebody waits for; the others end here."""
        with self._lock:
            for work in works:
                if not work.wanters:
                    self._scheduler.complete(work)
            return [work for work in works if work.wanters]

    def ran(self, tokens: int, seconds: float | None) -> None:
        """A forward pass of `tokens` tokens succeeded, in so many seconds if they tell how fast a replica is."""
        with self._lock:
            self._counters.ran(tokens, seconds)

    def requeue(self, works: Iterable[Work]) -> None:
        """A replica died with `works` aboard: once more, or the end if it is the second time."""
        works = list(works)
        lost = [work for work in works if work.deaths]
        with self._lock:
            self._scheduler.requeue(work for work in works if not work.deaths)
            self._work.notify_all()
            self._beside.notify_all()
        self.fail(lost, failures.lost_twice)

    def set_replicas(self, alive: int, total: int, outage: str | None) -> None:
        """How many replicas live; `outage` says why none can answer soon, if so."""
        with self._lock:
            self._replicas_alive = alive
            self._replicas_total = total
            self._outage = outage

    def end_hopeless(self) -> None:
        """In an outage, end what waits for the replicas that do not come."""
        with self._lock:
            outage = self._outage
            jobs = list(self._jobs.values()) if outage else []
        for job in jobs:
            self.end(job, Unavailable(str(outage)))

    # From the finishing thread, and wherever works end

    def complete(self, works: list[Work], rows: list[Outputs]) -> None:
        """Works are computed, a row for each. Resolves the requests that they complete."""
        finite = [failures.is_finite(row) for row in rows]
        if not all(finite):
            log.error("%s computed NaN or infinity for %d of %d texts", self.name, finite.count(False), len(works))
        settled: list[tuple[Job, Callable[[], Result] | LemniError]] = []
        now = time.monotonic()
        with self._lock:
            for work, row, valid in zip(works, rows, finite, strict=True):
                for flow, place in self._scheduler.complete(work):
                    job = self._jobs.get(flow)
                    if job is None:
                        continue  # a sibling in this loop has ended it
                    if not valid and self._claim(job):
                        settled.append((job, failures.invalid_output(job.request.first_item + place[0])))
                    elif valid and job.fill(place, row, work.started, now) and self._claim(job):
                        settled.append((job, job.finish))
        for job, outcome in settled:
            self._settle(job, outcome)

    def fail(self, works: Iterable[Work], failure: Failure) -> None:
        """Works cannot be computed; neither can the requests that want them."""
        with self._lock:
            wanters = [wanter for work in works for wanter in self._scheduler.complete(work)]
            jobs = [(self._jobs.get(flow), place) for flow, place in wanters]
        for job, place in jobs:
            if job is not None:
                self.end(job, failure(job.request.first_item + place[0]))

    # Ends

    def end(self, job: Job, error: LemniError) -> None:
        """End the job with an error, unless it has ended already."""
        with self._lock:
            claimed = self._claim(job)
        if claimed:
            self._settle(job, error)

    def _expire(self, job: Job) -> None:
        with self._lock:
            claimed = self._claim(job)
            alive = self._replicas_alive
        if claimed and alive:
            self._settle(job, DeadlineExceeded(f"not finished within its deadline of {job.deadline_s:g} s"))
        elif claimed:
            self._settle(job, Unavailable(f"no live replica of {self.name} within {job.deadline_s:g} s"))

    def _claim(self, job: Job) -> bool:
        """Under the lock: the right, given once, to resolve the job's future. Frees its place in the queue."""
        if job.ended:
            return False
        job.ended = True
        del self._jobs[job.flow]
        self._scheduler.leave(job.flow)
        self._alarm.cancel(job.deadline)
        return True

    def _settle(self, job: Job, outcome: Callable[[], Result] | LemniError) -> None:
        """Not under the lock: the future's callbacks run in here."""
        ended: Result | LemniError
        try:
            ended = outcome if isinstance(outcome, LemniError) else outcome()
        except LemniError as error:
            ended = error
        except BaseException as cause:
            ended = failures.internal(cause, "finishing a request")(None)
        if isinstance(ended, LemniError):
            _name_item(ended, job.request)
        cancelled = not job.handle.set_running_or_notify_cancel()
        with self._lock:
            self._counters.ended(None if cancelled else ended)
        try:
            if cancelled:
                pass  # the caller's cancel has resolved the future
            elif isinstance(ended, LemniError):
                job.handle.set_exception(ended)
            else:
                job.handle.set_result(ended)
        except BaseException:  # a callback's SystemExit must not end an engine thread
            log.exception("a callback of a request failed")
        job.handle.let_go()
        with self._lock:
            self._open -= 1
            self._held_bytes -= job.result_bytes
            if not self._open:
                self._quiet.notify_all()

    # Life cycle

    def refuse(self, why: str) -> None:
        """Admit nothing from now on."""
        with self._lock:
            self._refusal = why

    def drain(self, timeout_s: float | None) -> bool:
        """Wait until nothing is in flight. Returns whether that came to be."""
        with self._lock:
            return self._quiet.wait_for(lambda: not self._open, timeout_s)

    def close(self) -> None:
        """End everything in flight with Unavailable; send the replicas home."""
        with self._lock:
            self._closed = True
            self._refusal = "the engine is closed"
            jobs = list(self._jobs.values())
            self._work.notify_all()
            self._beside.notify_all()
        for job in jobs:
            self.end(job, Unavailable("the engine is closing"))

    def ready(self) -> bool:
        """Whether requests are admitted and all replicas live."""
        with self._lock:
            return not (self._refusal or self._outage) and 0 < self._replicas_total == self._replicas_alive

    def status(self) -> ModelStatus:
        with self._lock:
            return ModelStatus(
                replicas_alive=self._replicas_alive,
                replicas_total=self._replicas_total,
                waiting_tokens=self._scheduler.waiting_tokens,
                max_queue_tokens=self._settings.max_queue_tokens,
                waiting_sequences=self._scheduler.waiting,
                running_sequences=self._scheduler.running,
                open_requests=self._open,
                **self._counters.snapshot(),
            )


def _stamped(works: list[Work]) -> list[Work]:
    now = time.monotonic()
    for work in works:
        work.started = now
    return works


def _name_item(error: LemniError, request: Request) -> None:
    """An error of an item is about the field that holds it, unless it says itself which."""
    if error.item is not None and error.param is None:
        error.param = request.named(error.item - request.first_item)
