"""Connectors of another distribution, as a third party would ship them. They are parsed, never run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import Annotated, Any, Literal

from msgspec import Meta

from hub.capture import Capture, Discovered, Finding, Outlet
from hub.materialization import BindingSpec, Materialization, Sink
from hub.processor import Processor, Transform
from hub.record import Position, TaskName
from hub.schema import CollectionSchema
from hub.spec import Duration, Interpolated, MappingText, Secret, Size, Spec


class FeedPosition(Position, frozen=True):
    """The number of the last item."""

    item: int = 0


class Login(Spec, frozen=True, kw_only=True):
    """Who asks."""

    user: Annotated[str, Meta(description="The user.")]
    password: Annotated[Secret, Meta(description="The password.")]


class FeedCapture(Capture[FeedPosition], frozen=True, kw_only=True):
    """Reads a feed."""

    position_type = FeedPosition

    url: Annotated[str, Meta(description="Where the feed is.")]
    login: Annotated[Login | None, Meta(description="Who asks.")] = None
    every: Annotated[Duration, Meta(description="Time between looks.")] = Duration(1)
    limit: Annotated[Size, Meta(description="Most to read.")] = Size(1024)
    rate: Annotated[float, Meta(description="Looks a second.", gt=0)] = 1.0
    pages: Annotated[int, Meta(description="Pages to read.", ge=1)] = 1
    mode: Annotated[Literal["all", "new"], Meta(description="What to read.")] = "all"
    tags: Annotated[list[str], Meta(description="Tags to follow.")] = []
    constants: Annotated[dict[str, Any], Meta(description="What to add.")] = {}
    strict: Annotated[bool, Meta(description="Whether to be strict.")] = False
    text: Annotated[MappingText | None, Meta(description="What to do first.")] = None

    async def check(self, task: TaskName) -> Sequence[Finding]:
        if self.mode == "new":
            return [Finding(False, f"{self.url} is not reached as hunter2-hunter2", "start the feed")]
        return [Finding(True, f"{self.url} is reached")]

    async def discover(self, task: TaskName) -> Sequence[Discovered]:
        return []

    async def run(self, resume: FeedPosition | None, out: Outlet[FeedPosition]) -> None:
        return None


class UpperProcessor(Processor, frozen=True, kw_only=True):
    """Writes a field in capitals."""

    shorthand = "field"

    field: Annotated[str, Meta(description="The field.")]

    def start(self, source: CollectionSchema) -> Transform:
        raise NotImplementedError


class ShelfBinding(BindingSpec, frozen=True, kw_only=True):
    """One collection onto one board."""

    board: Annotated[Interpolated, Meta(description="The board.")]

    @property
    def target(self) -> Interpolated:
        return self.board


class ShelfMaterialization(Materialization, frozen=True, kw_only=True):
    """Puts records on a shelf."""

    binding_type = ShelfBinding
    delivery = "at least once"

    room: Annotated[str, Meta(description="Where the shelf stands.")]

    async def check(self, task: TaskName) -> Sequence[Finding]:
        return []

    def open(self, task: TaskName) -> AbstractAsyncContextManager[Sink]:
        raise NotImplementedError


upper = str.upper
