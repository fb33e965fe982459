"""The journal on a file system that forgets: random lives, faults and power cuts, judged after each recovery."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

Tell = Callable[..., str | None]


@pytest.mark.rig
def test_acknowledged_transactions_survive_every_legal_state_after_power_loss(
    tell_power_stories: Tell, soak_factor: int
) -> None:
    first = int(os.environ.get("HUB_SEED", "0"))
    count = 1 if "HUB_SEED" in os.environ else 4_000 * soak_factor
    assert tell_power_stories(range(first, first + count)) is None
