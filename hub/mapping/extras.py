"""Optional packages: found without importing them, imported at the first use, named when they are missing."""

from __future__ import annotations

import importlib
from functools import lru_cache
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from hub.mapping.values import EvaluationError

EXTRA = "mapping"
"""The extra of the distribution that brings the packages which parts of the library need."""


def needs(package: str, extra: str = EXTRA) -> dict[str, str]:
    """The fields `extra` and `missing` of a declaration that cannot do without a package."""
    return {"extra": extra, "missing": "" if find_spec(package) is not None else package}


@lru_cache(maxsize=64)
def load(module: str, what: str, extra: str = EXTRA) -> Any:
    """An optional module, or the error that says how to get it; for needs that depend on an argument."""
    try:
        found: ModuleType = importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise EvaluationError(
            f"{what} needs a package that is not installed: pip install 'hub-etl[{extra}]'"
        ) from error
    return found
