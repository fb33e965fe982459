"""A configuration file to a catalog, with every mistake of the file at once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from hub.catalog import Catalog
from hub.config.document import Document, Table, read
from hub.config.environment import substituted
from hub.config.native import SECTIONS, read_catalog
from hub.errors import ConfigError, Problem
from hub.registry import Unavailable

__all__ = ["load", "loads"]

FOREIGN = {
    "a Redpanda Connect": (
        "input",
        "pipeline",
        "output",
        "input_resources",
        "output_resources",
        "cache_resources",
    ),
    "a Decodable": ("sources", "pipelines", "sinks"),
}
"""Top-level names that tell another product's configuration."""


def load(path: str | Path, environ: Mapping[str, str] | None = None) -> Catalog:
    """Read and check a configuration file.

    Variables come from `environ`, by default the process's. Raises `ConfigError` with every problem found;
    nothing has been started or connected to then.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, f"cannot be read: {error.strerror}")]) from error
    return loads(content, file=str(path), root=path.parent, environ=environ)


def loads(
    content: str | bytes,
    *,
    file: str = "config",
    root: str | Path = ".",
    environ: Mapping[str, str] | None = None,
) -> Catalog:
    """Read and check the text of a configuration. `file` names it in errors; paths are relative to `root`."""
    variables = os.environ if environ is None else environ
    content = content.encode() if isinstance(content, str) else content
    document = read(file, content, lambda text: substituted(text, variables))
    catalog = None
    if _is_native(document):
        try:
            catalog = read_catalog(document, Path(root).absolute())
        except Unavailable as error:
            document.report((0, 0), str(error))
    if document.problems:
        raise ConfigError(sorted(set(document.problems)))
    assert catalog is not None, "a document without problems makes a catalog"
    return catalog


def _is_native(document: Document) -> bool:
    """Whether to read on. Reports a file that is empty, no mapping, or another product's."""
    if document.root is None:
        if not document.problems:
            document.report((0, 0), f"the file is empty; expected sections such as {', '.join(SECTIONS)}")
        return False
    if not isinstance(document.root, Table):
        document.report(document.root.place, f"expected sections such as {', '.join(SECTIONS)}")
        return False
    names = document.root.names
    for product, own in FOREIGN.items():
        found = [name for name in names if name in own]
        if found and not any(name in SECTIONS for name in names):
            document.report(
                names[found[0]], f"{found[0]!r} is a section of {product} config, which hub cannot run yet"
            )
            return False
    for section in ("captures", "materializations"):
        for name in document.names((section,)):
            if place := document.names((section, name)).get("endpoint"):
                document.report(
                    place, "'endpoint' belongs to an Estuary Flow config, which hub cannot run yet"
                )
                return False
    return True
