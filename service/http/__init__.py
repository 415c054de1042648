"""HTTP between the server and the endpoints.

- `gate`, `cross_origin`, `access_log`: run before routing
- `request_headers`, `cache_headers`, `query`, `body`: read a request
- `client_watch`: cancels the work of a client that disconnects
- `responses`, `streaming`: answers, errors and event streams
- `trace_recorder`, `traces`: exchanges in files, at debug level 2
"""
