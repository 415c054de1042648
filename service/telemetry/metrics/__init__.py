"""`GET /metrics`, for Prometheus.

- `registry`: all metrics of one app, and the answer.
- `readings`: the engine and the response cache, read at a scrape.
- `requests`: requests for a generation, counted as they end.
"""
