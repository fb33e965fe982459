"""The one model of a configuration, whatever dialect it was written in.

Captures, collections, derivations and materializations with their connectors parsed and their
references checked. The runtime plans from it and never sees YAML; `hub.config.load` makes one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from hub.capture import Capture
from hub.materialization import BindingSpec, Commit, ErrorPolicy, Materialization
from hub.options import Duration, Secret, Size
from hub.processor import Processor
from hub.record import TaskName
from hub.redaction import Redactor
from hub.spec import Spec

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hub.log.options import LogOptions, Retention
    from hub.spec import Path as OptionPath

DEAD_LETTERS = "dead_letters"
"""Dead letters of a task are the collection `dead_letters/<task>`."""


class Sources:
    """Which collections a `from:` names: exact names, globs, and exclusions that start with `!`.

    `*` stands for any text without a slash, `**` for any text at all, `?` for one character; everything
    else is itself. A glob only reaches dead letters when it says `dead_letters/`, so that a task that
    reads everything does not read what it set aside.
    """

    __slots__ = ("_excluded", "_included", "patterns")

    def __init__(self, patterns: str | Sequence[str]) -> None:
        self.patterns = (patterns,) if isinstance(patterns, str) else tuple(patterns)
        self._included = [_compiled(p) for p in self.patterns if not p.startswith("!")]
        self._excluded = [_compiled(p[1:]) for p in self.patterns if p.startswith("!")]

    def matches(self, collection: str) -> bool:
        """True when this collection is meant."""
        if not any(pattern.fullmatch(collection) for pattern in self._included):
            return False
        return not any(pattern.fullmatch(collection) for pattern in self._excluded)

    @property
    def may_be_several(self) -> bool:
        """True when more than one collection can be meant."""
        named = [pattern for pattern in self.patterns if not pattern.startswith("!")]
        return len(named) > 1 or any(map(is_glob, named))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sources) and other.patterns == self.patterns

    def __hash__(self) -> int:
        return hash(self.patterns)

    def __repr__(self) -> str:
        return f"Sources({', '.join(self.patterns)})"


_WILDCARD = re.compile(r"\*\*|\*|\?")
_MEANING = {"**": ".*", "*": "[^/]*", "?": "[^/]"}


def is_glob(pattern: str) -> bool:
    """True when a pattern can match more than one name."""
    return bool(_WILDCARD.search(pattern))


def _compiled(pattern: str) -> re.Pattern[str]:
    parts: list[str] = []
    at = 0
    for wildcard in _WILDCARD.finditer(pattern):
        parts += re.escape(pattern[at : wildcard.start()]), _MEANING[wildcard[0]]
        at = wildcard.end()
    parts.append(re.escape(pattern[at:]))
    guard = "" if pattern.startswith(DEAD_LETTERS + "/") else f"(?!{DEAD_LETTERS}/)"
    return re.compile(guard + "".join(parts), re.DOTALL)


class RetentionSpec(Spec, frozen=True, kw_only=True):
    """How long records are kept. They go when a limit that is set is exceeded; with none set, never."""

    age: Annotated[
        Duration | None, Meta(description="Let go of records older than this; `0s`: once they are consumed.")
    ] = None
    bytes: Annotated[Size | None, Meta(description="Let go of the oldest records beyond this size.")] = None
    until_consumed: Annotated[
        bool,
        Meta(
            description="Never let go of a record that a materialization has yet to read, however long that takes."
        ),
    ] = True
    compact: Annotated[
        bool,
        Meta(description="Keep only the newest version of each key in what is older than `compact_after`."),
    ] = False
    compact_after: Annotated[Duration, Meta(description="Age from which `compact` applies.")] = Duration(3600)
    keep_deletes: Annotated[
        Duration, Meta(description="How long `compact` keeps deletes, so that readers see them.")
    ] = Duration(86400)

    def to_log(self) -> Retention:
        """The same, as the log takes it."""
        from hub.log.options import Retention

        return Retention(
            age_s=None if self.age is None else float(self.age),
            bytes=self.bytes,
            until_consumed=self.until_consumed,
            compact=self.compact,
            compact_after_s=float(self.compact_after),
            delete_retention_s=float(self.keep_deletes),
        )


def _retention(written: Duration | RetentionSpec) -> Retention:
    return (RetentionSpec(age=written) if isinstance(written, Duration) else written).to_log()


class CollectionOptions(Spec, frozen=True, kw_only=True):
    """What a configuration says of one collection. Keys and schemas are otherwise discovered."""

    key: Annotated[
        list[Annotated[str, Meta(pattern="^/[^/]+$")]] | None,
        Meta(description="The fields that name a record, as JSON pointers such as `/id`."),
    ] = None
    retention: Annotated[
        Duration | RetentionSpec | None,
        Meta(description="How long records are kept: an age such as `7d`, or `age` and `bytes`."),
    ] = None


class LogSection(Spec, frozen=True, kw_only=True):
    """The durable log on disk."""

    path: Annotated[
        str, Meta(description="Folder of the log. Relative to the configuration file.", min_length=1)
    ] = "data"
    cap: Annotated[
        Size | None,
        Meta(description="The most disk the log may use; at the cap captures wait. None: what the disk has."),
    ] = None
    segment: Annotated[Size, Meta(description="Size of one segment file.")] = Size(64 << 20)
    retention: Annotated[
        Duration | RetentionSpec,
        Meta(
            description="How long records are kept, and in any case until every materialization has read them: an "
            "age such as `7d`, or `age`, `bytes` and so on. `0s`: until then and no longer."
        ),
    ] = Duration(7 * 86400)
    durability: Annotated[
        Literal["disk", "interval", "os"],
        Meta(
            description="When a record counts as durable: `disk` after it is synced, `interval` when written and "
            "synced every `sync_every`, `os` when written. Only `disk` survives a power cut."
        ),
    ] = "disk"
    sync_every: Annotated[Duration, Meta(description="Time between syncs with `durability: interval`.")] = (
        Duration(0.05)
    )
    tail: Annotated[Size, Meta(description="Newest records kept in memory for readers.")] = Size(16 << 20)
    queue: Annotated[Size, Meta(description="Records that may wait for the disk; captures wait beyond.")] = (
        Size(32 << 20)
    )
    max_record: Annotated[Size, Meta(description="The largest record taken.")] = Size(64 << 20)
    hold_timeout: Annotated[
        Duration,
        Meta(
            description="A materialization that the log waits for and that was not seen for so long raises an "
            "alarm. What it has yet to read is kept all the same."
        ),
    ] = Duration(86400)
    transaction_timeout: Annotated[
        Duration,
        Meta(
            description="A source transaction that is written in parts and got none for so long is given up; its "
            "capture reads it again."
        ),
    ] = Duration(3600)
    allow_unsafe_filesystem: Annotated[
        bool, Meta(description="Run on a file system that may forget what was synced, such as NFS or tmpfs.")
    ] = False
    compression: Annotated[
        int, Meta(description="Level of zstd for stored records; 0 stores them as they are.", ge=0, le=19)
    ] = 1


class ServerSection(Spec, frozen=True, kw_only=True):
    """The HTTP server for metrics and health: `/metrics`, `/healthz`, `/readyz`."""

    enabled: Annotated[bool, Meta(description="Whether to serve at all.")] = True
    address: Annotated[
        str, Meta(description="Where to listen, as `host:port`. Beyond this machine only with a `token`.")
    ] = "127.0.0.1:4195"
    token: Annotated[
        Secret | None, Meta(description="What a client must send as `Authorization: Bearer …`.")
    ] = None

    def problems(self) -> Iterator[tuple[OptionPath, str]]:
        host, _, port = self.address.rpartition(":")
        if not host or not port.isdecimal() or not int(port) < 65536:
            yield ("address",), f"expected host:port such as 127.0.0.1:4195, got {self.address!r}"
        elif self.enabled and not self.token and not _is_loopback(self.host):
            yield (
                ("address",),
                f"{self.address} can be reached from other machines: set a token, or listen on 127.0.0.1",
            )

    @property
    def host(self) -> str:
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The port; 0 lets the system choose one."""
        return int(self.address.rpartition(":")[2])


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


@dataclass(frozen=True, slots=True)
class CaptureTask:
    """One capture. `connector` is the name it has in the configuration, such as `postgres`."""

    name: TaskName
    connector: str
    capture: Capture[Any]


@dataclass(frozen=True, slots=True)
class Step:
    """One processor of a derivation. `name` tells it from the others: `mapping`, the next `mapping#2`."""

    name: str
    processor: Processor
    on_error: ErrorPolicy


@dataclass(frozen=True, slots=True)
class DerivationTask:
    """One derived collection, which has the derivation's name. `key` is None when it stays the source's."""

    name: str
    sources: Sources
    processors: tuple[Step, ...]
    key: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class BindingRule:
    """One line of `bindings`: makes a `Binding` of every collection that `sources` matches."""

    sources: Sources
    options: BindingSpec


@dataclass(frozen=True, slots=True)
class MaterializationTask:
    """One materialization with what it reads and when it commits."""

    name: TaskName
    connector: str
    materialization: Materialization
    bindings: tuple[BindingRule, ...]
    commit: Commit


@dataclass(frozen=True)
class Catalog:
    """A whole configuration, checked. Names are unique over captures, derivations and materializations.

    `redact` takes every secret of the configuration out of a text; logs and errors pass through it.
    `root` is the folder of the configuration file.
    """

    file: str
    root: Path
    captures: Mapping[TaskName, CaptureTask] = field(default_factory=dict)
    collections: Mapping[str, CollectionOptions] = field(default_factory=dict)
    derivations: Mapping[str, DerivationTask] = field(default_factory=dict)
    materializations: Mapping[TaskName, MaterializationTask] = field(default_factory=dict)
    log: LogSection = field(default_factory=LogSection)
    server: ServerSection = field(default_factory=ServerSection)
    redact: Redactor = field(default_factory=Redactor, repr=False)

    @cached_property
    def log_path(self) -> Path:
        """The folder of the log, absolute."""
        return (self.root / self.log.path).absolute()

    def key_of(self, collection: str) -> tuple[str, ...] | None:
        """The key this configuration gives a collection, as JSON pointers; None: the discovered one."""
        options = self.collections.get(collection)
        if options is not None and options.key is not None:
            return tuple(options.key)
        derivation = self.derivations.get(collection)
        return derivation.key if derivation is not None else None

    def log_options(self) -> LogOptions:
        """The options of the log, with the retention of every collection that has its own."""
        from hub.log.options import LogOptions

        return LogOptions(
            segment_bytes=self.log.segment,
            cap_bytes=self.log.cap,
            retention=_retention(self.log.retention),
            collections={
                name: _retention(options.retention)
                for name, options in self.collections.items()
                if options.retention is not None
            },
            tail_bytes=self.log.tail,
            queue_bytes=self.log.queue,
            max_record_bytes=self.log.max_record,
            hold_timeout_s=float(self.log.hold_timeout),
            txn_timeout_s=float(self.log.transaction_timeout),
            durability=self.log.durability,
            interval_s=float(self.log.sync_every),
            compression_level=self.log.compression or None,
            allow_unsafe_filesystem=self.log.allow_unsafe_filesystem,
        )
