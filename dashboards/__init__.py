"""The garden: Grafana boards and Prometheus rules, which read the metric names that spine.kernel.metrics declares."""
