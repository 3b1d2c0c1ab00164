"""Grafana as code: dashboards, data sources and alert rules, written and brought there."""
