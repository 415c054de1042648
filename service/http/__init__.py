"""What concerns HTTP alone, between the server and the endpoints.

- `gate`, `access_log`: what every request passes: id, host, key; and its line in the log.
- `request_headers`, `cache_headers`, `body`: reading a request.
- `client_watch`: ends the work of a client that goes away.
- `responses`, `streaming`: answers in one piece, and as a stream; errors.
- `trace_recorder`, `traces`: whole exchanges in files, at debug level 2.
"""
