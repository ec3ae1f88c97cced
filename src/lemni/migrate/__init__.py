"""A vector store's collection into one of another model: embedded anew, verified, switched, and switched back.

    from lemni.migrate import migrate

    done = migrate("chroma:./data?collection=docs", model="BAAI/bge-small-en-v1.5")
    print(done.ok, done.said, done.reports)

`migration.py` is the way; the stores are in `lemni.stores`, the embedding is a job of `lemni.bulk`.
"""

from __future__ import annotations

import os

from lemni.bulk.plan import Model
from lemni.migrate.how import How
from lemni.migrate.migration import Migration, Outcome
from lemni.migrate.report import write_report
from lemni.migrate.verify import Limits

__all__ = ["How", "Limits", "Migration", "Outcome", "migrate"]


def migrate(
    source: str | os.PathLike[str],
    target: str | None = None,
    *,
    model: str | Model,
    how: How | None = None,
) -> Outcome:
    """Embed a collection, or files, with a model into a collection of its own, verify that, and give it the name that
    the old one has. Killed at any moment, the same call goes on where it was. The report is written too.

    Args:
        source: address of a collection (`lemni.stores`), or a file that `lemni.bulk.embed` reads.
        target: address of the new collection; in the same store `OLD__MODEL` if None.
        model: as in `lemni.load`; a `Model` for other settings.

    Raises:
        LemniError: what `Migration.run` raises; with `How.drop_old` what `Migration.drop_old` raises instead. A failed
            verification is no error: `Outcome.ok` is false.
    """
    migration = Migration(source, target, model, how)
    outcome = migration.drop_old() if migration.how.drop_old else migration.run()
    write_report(outcome, how or How())
    return outcome
