"""The states of projects, milestones and tasks."""

import pytest

from policies.work_states import MILESTONE_STATES, OPEN_TASK, PROJECT_STATES, TASK_STATES


@pytest.mark.parametrize("states", [PROJECT_STATES, MILESTONE_STATES, TASK_STATES])
def test_every_state_is_in_its_table(states: dict[str, frozenset[str]]) -> None:
    """Transitions lead to states of the table, and none from a state to itself."""
    for state, targets in states.items():
        assert targets <= states.keys() - {state}


def test_ends_are_final() -> None:
    """Closed projects, reached and skipped milestones and cancelled tasks never change again."""
    assert not PROJECT_STATES["closed"] | MILESTONE_STATES["reached"] | MILESTONE_STATES["skipped"]
    assert not TASK_STATES["cancelled"]


def test_a_project_on_hold_is_resumed_before_it_is_closed() -> None:
    """From on_hold only active can follow (wire.md)."""
    assert PROJECT_STATES["on_hold"] == {"active"}


def test_open_tasks_are_those_that_can_be_done() -> None:
    """Tasks that are open or in progress wait for somebody."""
    assert {"open", "in_progress"} == OPEN_TASK
