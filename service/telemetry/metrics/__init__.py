"""Prometheus metrics.

- `registry`: all metrics of one app
- `readings`: the engine and the response cache at a scrape
- `requests`: counts of finished generation requests
"""
