"""A configuration file to a catalog, with every mistake of the file at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from hub.catalog import Catalog
from hub.config.document import FILE_BYTES_MAX, Document, Table, read
from hub.config.environment import substituted
from hub.config.native import SECTIONS, read_catalog
from hub.errors import ConfigError, Problem
from hub.options import CONFIG_FILE
from hub.registry import Unavailable

__all__ = ["lint", "load", "loads"]

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

    Variables come from `environ`, by default the process's. Raises `ConfigError` with every error found;
    nothing has been started or connected to then. Warnings are for `lint` to show.
    """
    path = Path(path)
    return loads(_content(path), file=str(path), root=path.parent, environ=environ)


def loads(
    content: str | bytes,
    *,
    file: str = "config",
    root: str | Path = ".",
    environ: Mapping[str, str] | None = None,
) -> Catalog:
    """Read and check the text of a configuration. `file` names it in errors; paths are relative to `root`."""
    content = content.encode() if isinstance(content, str) else content
    catalog, problems = _checked(file, content, Path(root), os.environ if environ is None else environ)
    if mistakes := [problem for problem in problems if problem.severity == "error"]:
        raise ConfigError(mistakes)
    assert catalog is not None, "a file without errors makes a catalog"
    return catalog


def lint(
    path: str | Path, environ: Mapping[str, str] | None = None, *, unset_ok: bool = False
) -> list[Problem]:
    """Every problem of a file, warnings too, in order; `-` is standard input. With `unset_ok` a variable that is not set is
    none, and whatever depends on its value is not looked at."""
    stdin = str(path) == "-"
    try:
        content = sys.stdin.buffer.read(FILE_BYTES_MAX + 1) if stdin else _content(Path(path))
    except ConfigError as error:
        return error.problems
    variables = os.environ if environ is None else environ
    return _checked(str(path), content, Path(path).parent, variables, unset_ok=unset_ok)[1]


def _content(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise ConfigError([Problem(str(path), 0, 0, f"cannot be read: {error.strerror}")]) from error


def _checked(
    file: str, content: bytes, root: Path, environ: Mapping[str, str], *, unset_ok: bool = False
) -> tuple[Catalog | None, list[Problem]]:
    document = read(file, content, lambda text: substituted(text, environ), unset_ok=unset_ok)
    catalog = None
    if _is_native(document):
        token = CONFIG_FILE.set(str(root.absolute() / Path(file).name))
        try:
            catalog = read_catalog(document, root.absolute())
        except Unavailable as error:
            document.report((0, 0), str(error))
        finally:
            CONFIG_FILE.reset(token)
    return catalog, sorted(set(document.problems))


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
