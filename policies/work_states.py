"""The states of projects, milestones and tasks, and the transitions between them (products.md 3.1)."""

from typing import Final

PROJECT_STATES: Final = {
    "active": frozenset({"on_hold", "closed"}),
    "on_hold": frozenset({"active"}),
    "closed": frozenset[str](),
}
"""A project on hold is resumed before it is closed."""
MILESTONE_STATES: Final = {
    "pending": frozenset({"reached", "skipped"}),
    "reached": frozenset[str](),
    "skipped": frozenset[str](),
}
TASK_STATES: Final = {
    "open": frozenset({"in_progress", "done", "cancelled"}),
    "in_progress": frozenset({"done", "cancelled"}),
    "done": frozenset({"open"}),
    "cancelled": frozenset[str](),
}
OPEN_TASK: Final = frozenset(state for state, targets in TASK_STATES.items() if "done" in targets)
"""States in which a task waits for somebody: such tasks stand in queues and may become overdue."""
