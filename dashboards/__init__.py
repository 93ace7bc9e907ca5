"""Grafana boards and Prometheus rules, which use the metric names that spine.kernel.metrics declares."""
