"""Serves the app with Hypercorn. No other folder imports Hypercorn or h11; docs/server.md lists the departures from
them.

- `server`: binding, signals, start and end
- `connections`: accepting and closing connections
- `http1`: HTTP/1.1 and its errors
- `unread_body`: discards request bodies that the app leaves unread
"""
