"""The registry of all metrics, and the functions that declare a metric in it."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.metrics import disable_created_metrics

from spine.kernel.metrics.labels import Labelled

# With creation times the text format has half as many lines again.
disable_created_metrics()  # type: ignore[no-untyped-call]  # some functions of the library have no types

REGISTRY: Final = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)


def counter(name: str, documentation: str, *labels: str) -> Labelled[Counter]:
    """Declare a counter with labels."""
    return Labelled(Counter(name, documentation, labels, registry=REGISTRY), labels)


def histogram(name: str, documentation: str, buckets: tuple[float, ...], *labels: str) -> Labelled[Histogram]:
    """Declare a histogram with labels."""
    return Labelled(Histogram(name, documentation, labels, registry=REGISTRY, buckets=buckets), labels)


def gauge(name: str, documentation: str, *labels: str) -> Labelled[Gauge]:
    """Declare a gauge of one process. The values of live processes behind one port are added up."""
    return Labelled(Gauge(name, documentation, labels, registry=REGISTRY, multiprocess_mode="livesum"), labels)


def shared_gauge(name: str, documentation: str, *labels: str) -> Labelled[Gauge]:
    """Declare a gauge that has the same value in every process."""
    return Labelled(Gauge(name, documentation, labels, registry=REGISTRY, multiprocess_mode="livemostrecent"), labels)
