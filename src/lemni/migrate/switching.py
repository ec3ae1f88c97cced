"""Giving the name to the new collection, giving it back, and removing the old collection."""

from __future__ import annotations

from lemni.errors import CannotSwitch, ConfigError
from lemni.migrate.connection import Connection
from lemni.migrate.state import State
from lemni.stores.place import parse

_FIRST = "First give the same command without --drop-old: it does what is left, verifies and switches"


def switch(state: State, target: Connection, alias: str) -> str:
    """Whoever asks for `alias` gets the new collection. Killed in the middle, the same call finishes.

    Returns:
        What was done, in a line.

    Raises:
        CannotSwitch: the store has no way to do it.
        StoreError: it failed; the journal says so, and the same call tries again.
    """
    if state.phase != "switching":
        state.alias, state.old = alias, meaning(target, alias)
        state.enter("switching")
    connection = target.other(state.new)
    try:
        kept = connection.store.switch(alias)
    except CannotSwitch:
        state.enter("verified")
        raise
    finally:
        connection.close()
    if kept and kept != state.new:  # of an alias that was moved just before we were killed, only the journal knows
        state.old = kept
    state.new = meaning(target, alias)
    state.enter("switched")
    was = f"; what it was before is kept as {state.old}" if state.old else ""
    return f"{alias} is the new collection now{was}"


def undo(state: State, target: Connection) -> str:
    """Whoever asks for the name gets the old collection again.

    Raises:
        ConfigError: nothing was switched, or the old collection is gone.
        StoreError: the store failed.
    """
    if state.phase == "dropped":
        raise ConfigError(f"{state.old}: was dropped, so there is nothing to go back to")
    if state.phase not in ("switched", "switching", "undoing") or state.alias is None:
        raise ConfigError(f"{state.path}: nothing was switched, so there is nothing to roll back")
    if state.phase == "switching":
        switch(state, target, state.alias)
    if not state.old:
        raise ConfigError(f"{state.alias}: was no collection before, so there is nothing to go back to")
    if state.phase != "undoing":
        state.enter("undoing")
    if meaning(target, state.alias) != state.old:
        before = parse(state.target).collection
        connection = target.other(state.old)
        try:
            if not connection.store.exists() and meaning(target, before):
                state.new = before  # killed just behind it: both have their names back
            else:
                state.new = connection.store.switch(state.alias) or state.new
        finally:
            connection.close()
    state.old = meaning(target, state.alias)
    state.enter("undone")
    return f"{state.alias} is the old collection again; the new one is kept as {state.new}"


def drop(state: State, old: Connection) -> str:
    """Remove the old collection, once `check_drop` has let it pass."""
    old.ask(lambda store: store.drop())
    state.enter("dropped")
    return f"{old.place.collection} is removed"


def check_drop(state: State, *, switches: bool = True) -> None:
    """Raises ConfigError where dropping would lose what is still needed. A migration whose sides are different stores,
    or whose store has said that it cannot switch, is never switched: it has to be verified only."""
    if state.phase in ("switching", "undoing", "undone"):
        what = "the migration was rolled back, and it" if state.phase == "undone" else "it"
        raise ConfigError(f"the old collection stays: {what} is the one in use. {_FIRST}")
    if state.verified is not True:
        what = "has not been verified" if state.verified is None else "did not pass its verification"
        raise ConfigError(f"the old collection stays: the new one {what}. {_FIRST}")
    tried = state.alias is not None  # and refused by the store, if the phase is "verified" again
    if state.phase != "switched" and not (state.phase == "verified" and (tried or not switches)):
        raise ConfigError(f"the old collection stays: the name was not switched to the new one. {_FIRST}")


def meaning(target: Connection, name: str) -> str:
    """The collection that a name means now; "" if none."""
    connection = target.other(name)
    try:
        return connection.store.describe().collection if connection.store.exists() else ""
    finally:
        connection.close()
