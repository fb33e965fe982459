"""The contract of a processor: batches in, batches out, plain and synchronous.

A processor is started once a collection and again whenever that collection's schema changes,
so that it can say what its output looks like before the first record comes.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import ClassVar, Protocol

from hub.record import Batch
from hub.schema import CollectionSchema
from hub.spec import Spec


class Transform(Protocol):
    """A processor at work on one collection."""

    schema: CollectionSchema
    """What comes out: the key, the known fields, and `is_open` when others may appear."""

    def process(self, batch: Batch) -> Sequence[Batch]:
        """Transform records, in order.

        A record that cannot be processed stays in its place with its original document and is flagged in
        `Batch.errors`; the engine sets it aside, skips it or stops, as the configuration says. Never
        raises for the sake of a record, keeps no state from one batch to the next, never changes what
        it was given.
        """
        ...


class Processor(Spec, frozen=True, kw_only=True):
    """Base of every processor: its options are its fields."""

    shorthand: ClassVar[str] = ""
    """The option that is meant when a config gives no names, as in `mapping: root = this`."""

    def warnings(self, source: CollectionSchema) -> Sequence[str]:
        """What looks wrong when the documents are like `source`, such as a field that is not there."""
        return ()

    @abc.abstractmethod
    def start(self, source: CollectionSchema) -> Transform:
        """Begin on a collection whose documents look like `source`."""
