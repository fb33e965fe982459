"""YAML read and written as Go's yaml.v3 does: YAML 1.2 scalars, four spaces an indent.

The hard part is which strings need quotes: all that would be read as something else, also by readers of
YAML 1.1 (`yes`, `2020-01-01`).
"""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from hub.mapping.limits import OUTPUT_BYTES_MAX, check_bytes, check_depth
from hub.mapping.timestamp import Timestamp
from hub.mapping.values import EvaluationError, Number, Value, finite_or_text, go_quote, real

ALIASED_NODES_MAX: Final = 100_000
"""Values that aliases may stand for in one text, so that a short one cannot expand to gigabytes."""
