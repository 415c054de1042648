"""Reports on requests, the engine and the response cache.

- `request_log`: a record and a log line for each generation request
- `activity`, `timeline`, `speed`: the last minutes
- `prompt_history`: why a prompt is read again
- `stats`: the body of `/stats`, for the dashboard and `anyclaude stats`
- `metrics/`: counts since the start, for Prometheus
- `log_ring`: the last log lines
- `readiness`: the terminal's line when the model is loaded
- `omissions`: a log line for each request field that is not read, and each tool that is left out
"""
