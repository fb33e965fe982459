"""The `mutation` processor: as `mapping`, but what is not assigned stays.

It shares all of `mapping` that keeps a destination a view. What differs is the language's: assignments change
the document itself, and `this` sees what earlier ones have made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar

from msgspec import Meta

from hub.options import MutationText
from hub.processor import Processor, Transform
from hub.schema import CollectionSchema
from hub_processors.mapping import MappingTransform, mapping_warnings

if TYPE_CHECKING:
    from hub.mapping import Compiled


class MutationProcessor(Processor, frozen=True, kw_only=True):
    """Changes each document in place with a mapping: fields that it does not assign stay as they are.

    `this` is the document as it has been changed so far, so the order of assignments counts. Over a collection
    with a key the result is a view, as that of `mapping` is.
    """

    shorthand: ClassVar[str] = "mutation"

    mutation: Annotated[
        MutationText, Meta(description="The mapping.", examples=["root.password = deleted()"])
    ]

    def start(self, source: CollectionSchema) -> Transform:
        return MappingTransform(self._compiled, source)

    def warnings(self, source: CollectionSchema) -> Sequence[str]:
        return mapping_warnings(self.mutation, source)

    @cached_property
    def _compiled(self) -> Compiled:
        return self.mutation.compiled()
