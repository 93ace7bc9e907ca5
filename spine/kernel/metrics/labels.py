"""Label values that stay few, and children of metrics that are looked up once."""

from collections.abc import Iterable
from typing import Final, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

MAX_CUSTOM_TYPES: Final = 100
"""Callers' own event types that get a label value of their own in one process; the rest are counted as `other`."""

M = TypeVar("M", Counter, Gauge, Histogram)


class Labelled(Generic[M]):
    """A metric whose children are looked up once for each set of label values, in a fifth of the library's time."""

    def __init__(self, metric: M, labels: tuple[str, ...]) -> None:
        self._metric: M = metric
        self._children: dict[tuple[str, ...], M] = {} if labels else {(): metric}

    def __call__(self, *values: str) -> M:
        """The child for these label values, which must come from a small set: each is a time series for good."""
        child = self._children.get(values)
        return child if child is not None else self._children.setdefault(values, self._metric.labels(*values))


class EventTypes:
    """Event types as label values: the suite's own by name, the first of the callers' own, and `other`."""

    def __init__(self, limit: int = MAX_CUSTOM_TYPES) -> None:
        self._limit = limit
        self._own: frozenset[str] = frozenset()
        self._custom: set[str] = set()

    def declare(self, names: Iterable[str]) -> None:
        """Name the suite's own types; they always keep their names."""
        self._own |= frozenset(names)

    def labels(self, event_type: str) -> tuple[str, str]:
        """(product, event type): the first word and the name of an own type, else `custom` and the name or `other`."""
        if event_type in self._own:
            return event_type.partition(".")[0], event_type
        if event_type not in self._custom:
            if len(self._custom) >= self._limit:
                return "custom", "other"
            self._custom.add(event_type)
        return "custom", event_type


class ByType:
    """A counter by product and event type: `delivered(event_type).inc(n)`."""

    def __init__(self, name: str, documentation: str, types: EventTypes, registry: CollectorRegistry) -> None:
        labels = ("product", "event_type")
        self._counter = Labelled(Counter(name, documentation, labels, registry=registry), labels)
        self._types = types
        self._children: dict[str, Counter] = {}

    def __call__(self, event_type: str) -> Counter:
        """The counter of this type."""
        child = self._children.get(event_type)
        return child if child is not None else self._bind(event_type)

    def _bind(self, event_type: str) -> Counter:
        labels = self._types.labels(event_type)
        child = self._counter(*labels)
        if labels[1] == event_type:
            self._children[event_type] = child
        return child
