"""The journal against a list: Hypothesis chooses appends, faults, kills and power cuts, and shrinks what goes wrong."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from hub.errors import Full, Poisoned
from hub.testing.simfs import PowerLoss

if TYPE_CHECKING:
    from hub.log.journal import Journal


@pytest.mark.rig
def test_no_sequence_of_appends_faults_and_crashes_breaks_a_promise(
    power_story: type[Any], soak_factor: int
) -> None:
    class Machine(RuleBasedStateMachine):
        """The model is the story's own list of what was acknowledged and shown; each open is judged by it."""

        @initialize(seed=st.integers(0, 1 << 16))
        def begin(self, seed: int) -> None:
            self.story = power_story(seed)
            self.journal: Journal | None = None
            self.reopen()

        @contextmanager
        def survived(self) -> Iterator[None]:
            try:
                yield
            except PowerLoss:
                self.story.sim.lose_power()
                self.journal = None
            except (Poisoned, OSError):
                # The process ends; the machine, and what its cache shows, lives on.
                self.story.sim.kill()
                self.journal = None
            except Full:
                pass

        def reopen(self) -> None:
            while self.journal is None:
                with self.survived():
                    self.journal = self.story.open()

        @rule()
        def append(self) -> None:
            self.reopen()
            with self.survived():
                self.story.append(self.journal)

        @rule()
        def mark(self) -> None:
            self.reopen()
            with self.survived():
                assert self.journal is not None
                self.journal.mark()

        @rule()
        def roll(self) -> None:
            self.reopen()
            with self.survived():
                assert self.journal is not None
                self.journal.roll()

        @rule(kind=st.sampled_from(["crash", "eio", "enospc", "short"]), calls=st.integers(1, 15))
        def fault(self, kind: Any, calls: int) -> None:
            self.story.sim.plan(kind, calls)

        @rule()
        def kill(self) -> None:
            self.story.sim.kill()
            self.journal = None
            self.reopen()

        @rule()
        def lose_power(self) -> None:
            self.story.sim.lose_power()
            self.journal = None
            self.reopen()

        @rule()
        def close(self) -> None:
            self.reopen()
            with self.survived():
                assert self.journal is not None
                self.journal.close()
            self.journal = None
            self.reopen()

        def teardown(self) -> None:
            if hasattr(self, "story"):
                self.story.sim.faults.clear()
                self.story.sim.lose_power()
                self.journal = None
                self.reopen()

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=300 * soak_factor,
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
