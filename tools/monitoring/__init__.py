"""Prometheus rules, alerts and their tests, and Grafana dashboards: `python -m tools.monitoring` writes all files."""
