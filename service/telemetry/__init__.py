"""What is reported of requests, the engine and the response cache.

- `request_log`: one record for each request for a generation, and its line in the log.
- `activity`, `timeline`, `speed`: the last minutes, for people who look now.
- `stats`: the answer of `/stats`, which the dashboard and `anyclaude stats` show.
- `metrics/`: counts since the start, for Prometheus.
- `readiness`: the line that the terminal shows when the model is loaded.
- `unknown_fields`: a line for each field of a request that nobody reads.
"""
