"""A migration from its beginning to the switch: look, embed, verify, switch, and remove. Every step may be interrupted,
and the same call goes on behind what is done."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from lemni.bulk.manifest import Manifest
from lemni.bulk.outputs.stores import schema_of
from lemni.bulk.plan import Model, Plan, Rules, plan
from lemni.bulk.progress import Price
from lemni.bulk.run import Job, Summary, run_job
from lemni.bulk.sample import Estimate, estimate
from lemni.bulk.sources import open_source
from lemni.bulk.sources.base import Columns
from lemni.errors import CannotSwitch, ConfigError
from lemni.migrate import standing, switching
from lemni.migrate.checks import Verification
from lemni.migrate.connection import Connection
from lemni.migrate.difference import Difference
from lemni.migrate.embedder import embedder, loaded_embedder
from lemni.migrate.how import How
from lemni.migrate.joined import JoinedTexts
from lemni.migrate.judged import Judged, read_judged
from lemni.migrate.places import Places, places
from lemni.migrate.preflight import Preflight, check_texts, look
from lemni.migrate.source import FileSide, Side, StoreSource
from lemni.migrate.state import State
from lemni.migrate.target import Target, rejected_by
from lemni.migrate.verify import Verifier
from lemni.stores.place import Place
from lemni.tasks.model import LoadedModel
from lemni.types import Options

_SWITCHED = ("switched", "undoing", "undone", "dropped")


@dataclass(slots=True)
class Outcome:
    """What a run of a migration came to.

    Attributes:
        ok: every step that was asked for was done, or the store cannot switch.
        said: what happened, a line for each step.
        reports: files.
    """

    places: Places
    model: str
    state: State
    ok: bool = True
    said: list[str] = field(default_factory=list)
    preflight: Preflight | None = None
    summary: Summary | None = None
    verification: Verification | None = None
    reports: list[Path] = field(default_factory=list)

    @property
    def switched(self) -> bool:
        return self.state.phase == "switched"


class Migration:
    """One migration, by its two sides and its model; nothing is opened yet.

    Args:
        say: told each step as it is done.

    Raises:
        ConfigError: what does not fit together, or a folder that is another migration's.
        StoreError: an address that is none.
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        target: str | None,
        model: str | Model,
        how: How | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.how, self._say = how or How(), say
        self.model = model if isinstance(model, Model) else Model.named(model)
        name = self.model.settings.model
        folder = None if self.how.folder is None else Path(self.how.folder)
        self.places = places(
            os.fspath(source), target, name, dimensions=self.how.dimensions, alias=self.how.alias, folder=folder
        )
        here = (self.places.source_name, str(self.places.target), name)
        path = self.places.folder / "migration.json"
        found = State.read(path)
        if found is not None and (found.source, found.target, found.model) != here:
            raise ConfigError(
                f"{self.places.folder}: holds the migration of {found.source} to {found.target} with {found.model}; "
                "name another folder with --folder"
            )
        self.is_begun = found is not None
        self.state = found or State(path, *here, new=self.places.target.collection)
        self._target = Connection(replace(self.places.target, collection=self.state.new))

    def run(self) -> Outcome:
        """Do what is left.

        Raises:
            InvalidRequest: entries without a text; what the model does not do.
            ConfigError: the target is there and not this migration's.
            StoreError: a side cannot be opened, or refused an entry.
            StoreLost: a store failed in the middle; the same call goes on.
            LemniError: what loading the model raises.
        """
        outcome = self.outcome()
        with contextlib.ExitStack() as opened:
            opened.callback(lambda: self._target.close())
            self._finish_interrupted(outcome)
            finished = self.state.phase in ("switched", "dropped") and not self.how.catch_up
            if finished and (why := standing.changed(self.state, self.places, self._target)):
                kept = standing.put_aside(self.places.folder)
                self._begin_anew()
                outcome.state, finished = self.state, False
                self._tell(outcome, f"a new migration begins: {why}. The journal of the last one is kept as {kept}")
            if finished and not self.how.overwrite:
                self._tell(outcome, standing.said(self.state))
                outcome.verification = None
            else:
                self._embed_and_verify(outcome, opened, job=True)
                if outcome.ok:
                    self._switch(outcome)
        return outcome

    def verify(self) -> Outcome:
        """Only that, whatever the migration's state is."""
        outcome = self.outcome()
        with contextlib.ExitStack() as opened:
            opened.callback(lambda: self._target.close())
            self._finish_interrupted(outcome)
            self._embed_and_verify(outcome, opened, job=False)
        return outcome

    def estimate(self) -> tuple[Preflight, Estimate]:
        """Both sides, and what the job would take; nothing is written."""
        with contextlib.ExitStack() as opened:
            opened.callback(lambda: self._target.close())
            if self.state.phase in ("switched", "dropped") and standing.changed(self.state, self.places, self._target):
                self._begin_anew()
            source = opened.enter_context(self._source())
            self._say(f"model: {self.model.settings.model}")
            loaded = opened.enter_context(contextlib.closing(self.model.load()))
            planned, target = self._planned(source, loaded), self._output(source)
            found = look(source, self._target, schema_of(planned.made, self.how.metric), ours=True)
            job = Job(planned, source, target, Manifest(self.places.folder / "job"))
            price = self.how.price_per_hour
            return found, estimate(job, loaded, price=None if price is None else Price(price))

    def roll_back(self) -> Outcome:
        """The name gets its old collection again."""
        outcome = self.outcome()
        with contextlib.closing(self._target):
            self._tell(outcome, switching.undo(self.state, self._target))
        return outcome

    def check_drop(self) -> Place:
        """Look whether the old collection may go; nothing is changed. Returns where it is.

        Raises:
            ConfigError: the new one is not verified or not switched to, or the old one is in use, or is no collection.
        """
        place = self.old_place()
        if self.state.phase == "dropped":
            return place
        switching.check_drop(self.state, switches=self.places.alias is not None)
        with contextlib.closing(self._target):
            if self.places.is_same_store:
                before, after = (switching.meaning(self._target, name) for name in (self.state.old, self.state.new))
                if before == after:
                    raise ConfigError(f"{self.state.old}: is the new collection, and stays")
            if why := standing.changed(self.state, self.places, self._target):
                raise ConfigError(f"the old collection stays: {why}")
        return place

    def drop_old(self) -> Outcome:
        """Remove the old collection, and do nothing else. Raises what `check_drop` raises."""
        outcome, place = self.outcome(), self.check_drop()
        if self.state.phase == "dropped":
            self._tell(outcome, f"nothing to do: {place.collection} is removed already")
            return outcome
        with contextlib.closing(Connection(place)) as old:
            self._tell(outcome, switching.drop(self.state, old))
        return outcome

    def old_place(self) -> Place:
        """Where the old collection is now. Raises ConfigError where the source was files."""
        if self.places.source is None:
            raise ConfigError(f"{self.places.files}: is no collection; nothing is dropped")
        if self.places.is_same_store and self.state.old:
            return replace(self.places.source, collection=self.state.old)
        return self.places.source

    def outcome(self) -> Outcome:
        """With nothing done yet."""
        return Outcome(self.places, self.model.settings.model, self.state)

    def _tell(self, outcome: Outcome, line: str) -> None:
        outcome.said.append(line)
        self._say(line)

    def _finish_interrupted(self, outcome: Outcome) -> None:
        if self.state.phase == "switching" and self.state.alias is not None:
            self._tell(outcome, switching.switch(self.state, self._target, self.state.alias))
        elif self.state.phase == "undoing":
            self._tell(outcome, switching.undo(self.state, self._target))
        if self.state.new != self._target.place.collection:
            self._target.close()
            self._target = self._target.other(self.state.new)

    def _begin_anew(self) -> None:
        """As if there were no journal."""
        before = self.state
        self.state = State(before.path, before.source, before.target, before.model, new=self.places.target.collection)
        self.is_begun = False
        self._target.close()
        self._target = Connection(self.places.target)

    def _embed_and_verify(self, outcome: Outcome, opened: contextlib.ExitStack, *, job: bool) -> None:
        how = self.how
        judged = None if how.queries is None or how.qrels is None else read_judged(Path(how.queries), Path(how.qrels))
        source = opened.enter_context(self._source())
        if job:
            self._begin(source)
        self._say(f"model: {self.model.settings.model}")
        loaded = opened.enter_context(contextlib.closing(self.model.load()))
        planned = self._planned(source, loaded)
        started = time.monotonic()
        schema = schema_of(planned.made, how.metric)
        ours = not job or self.is_begun or how.catch_up
        outcome.preflight = look(source, self._target, schema, ours=ours)
        looking = round(time.monotonic() - started, 3)
        about = {
            "entries": f"{outcome.preflight.entries:,}",
            "without a text": f"{outcome.preflight.missing:,}",
        }
        self.state.note(about, {"looking through the source": looking})
        for line in outcome.preflight.lines(source.name, self._target.name):
            self._say(line)
        if job:
            check_texts(outcome.preflight, source.name, skip_missing=how.skip_missing)
            self._write(outcome, source, loaded, planned)
        self._verify(outcome, source, loaded, planned, judged)

    def _begin(self, source: Side) -> None:
        """The journal says whose folder and whose target this is."""
        if source.connection is not None and self.state.phase not in _SWITCHED:
            found = source.connection.store.describe()
            if self.places.is_same_store:
                if found.collection == self.state.new:
                    raise ConfigError(f"{source.name}: is {found.collection}, the target itself")
                self.state.old = found.collection
        if self.how.overwrite:
            if self.state.phase in _SWITCHED:
                raise ConfigError(f"{self.state.path}: was switched: nothing of it is overwritten. Name another target")
            self._target.store.drop()
            for name in ("job", "catch-up"):
                Manifest(self.places.folder / name).discard()
            self.state.verified = None
            self.is_begun = False

    def _write(self, outcome: Outcome, source: Side, loaded: LoadedModel, planned: Plan) -> None:
        if not self.is_begun:
            self.state.enter("begun")
            self.is_begun = True
        target = self._output(source)
        if self.how.catch_up:
            manifest = Manifest(self.places.folder / "catch-up")
            job = Job(planned, Difference(source, self._target), target, manifest)
        else:
            manifest = Manifest(self.places.folder / "job")
            job = Job(planned, source, target, manifest)
        done = run_job(job, loaded, overwrite=self.how.catch_up, progress=self.how.progress)
        outcome.summary = done
        left = f", {done.rejected} left out ({done.rejects})" if done.rejected else ""
        if not done.seconds and not self.how.catch_up:
            self._tell(outcome, f"{done.written:,} entries were written by an earlier run{left}")
            return
        what = "caught up with" if self.how.catch_up else "written"
        about = {
            what: f"{done.written:,}",
            "left out": f"{done.rejected:,}" + (f", reasons in {done.rejects}" if done.rejects else ""),
            "cut to the model's length": f"{done.truncated:,}",
            "tokens": f"{done.tokens:,}",
        }
        self.state.note(about, {"catching up" if self.how.catch_up else "embedding": done.seconds})
        self.state.enter(self.state.phase if self.state.phase in _SWITCHED else "written")
        fresh = done.rows - done.resumed
        rate = f" in {done.seconds:.1f} s" + (f", {fresh / done.seconds:,.0f} a second" if done.seconds else "")
        if done.resumed:
            rate = f", {done.resumed:,} of them by an earlier run, the other {fresh:,}{rate}"
        self._tell(outcome, f"{done.written:,} entries are {what}{rate}{left}")

    def _verify(
        self, outcome: Outcome, source: Side, loaded: LoadedModel, planned: Plan, judged: Judged | None
    ) -> None:
        rejected = rejected_by(self.places.folder)
        with contextlib.ExitStack() as opened:
            new = opened.enter_context(embedder(self.model, loaded, planned.request))
            old = None
            if judged is not None and self.how.old_model is not None:
                named = self.how.old_model
                model = (
                    named
                    if isinstance(named, Model)
                    else replace(
                        self.model, settings=self.model.settings.model_copy(update={"model": named, "revision": None})
                    )
                )
                old = opened.enter_context(loaded_embedder(model, planned.request))
            verifier = Verifier(
                source,
                self._target,
                new,
                self.how.limits,
                left_out=lambda name: name in rejected,
                judged=judged,
                old=old,
            )
            found = verifier.run()
        outcome.verification, outcome.ok = found, found.passed
        self.state.verified = found.passed
        self.state.results["checks"] = [asdict(check) for check in found.checks]
        self.state.results["samples"] = found.samples
        if found.passed:
            self.state.results["left"] = standing.left_in(self._target)
        self.state.note({}, {"verification": found.seconds})
        if self.state.phase in _SWITCHED:
            self.state.enter(self.state.phase)
        else:
            self.state.enter("verified" if found.passed else "failed")
        failed = ", ".join(check.name for check in found.checks if check.passed is False)
        passed = sum(check.passed is True for check in found.checks)
        self._tell(outcome, f"not verified: {failed}" if failed else f"verified: {passed} checks passed")

    def _switch(self, outcome: Outcome) -> None:
        """If that is wanted."""
        alias = self.places.alias
        if self.state.phase in ("switched", "dropped"):
            return
        if alias is None:
            self._tell(outcome, "not switched: both sides are different stores; --alias NAME names what to switch")
            return
        if not self.how.switch:
            self._tell(outcome, f"not switched, as asked; the same command without --no-switch switches {alias}")
            return
        try:
            self._tell(outcome, switching.switch(self.state, self._target, alias))
        except CannotSwitch as error:
            self._tell(outcome, f"not switched: {error.message}")

    @contextlib.contextmanager
    def _source(self) -> Iterator[Side]:
        how, place = self.how, self.places.source
        if place is None:
            columns = Columns(how.text or "text", how.id)
            yield FileSide(open_source([self.places.files], columns))
            return
        if self.places.is_same_store and self.state.phase in _SWITCHED:
            place = replace(place, collection=self.state.old)
        if how.text is not None:
            place = replace(place, options={**place.options, "text": how.text})
        with contextlib.ExitStack() as opened:
            joined = None
            if how.texts_from is not None:
                joined = opened.enter_context(contextlib.closing(JoinedTexts(os.fspath(how.texts_from))))
            connection = opened.enter_context(contextlib.closing(Connection(place)))
            yield StoreSource(connection, joined)

    def _output(self, source: Side) -> Target:
        like = source.connection
        if like is not None and type(like.store) is not type(self._target.store):
            like = None
        return Target(self._target, self.how.metric, like)

    def _planned(self, source: Side, loaded: LoadedModel) -> Plan:
        """The identities are of the names that both sides had in the beginning."""
        how = self.how
        options = Options(dimensions=how.dimensions, prompt_name=how.prompt_name, input_type=how.input_type)
        return plan(
            {**source.identity(), **({} if self.places.source is None else {"store": self.places.source_name})},
            {"store": str(self.places.target), "metric": how.metric},
            self.model,
            loaded,
            task=how.task,
            options=options,
            rules=Rules(how.batch),
        )
