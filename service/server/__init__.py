"""Serves the app with Hypercorn, which no other folder of the product imports. docs/server.md lists the departures
from it.

- `server`: binding, signals, start and end
- `connections`: accepting and closing connections
- `http1`: HTTP/1.1 and its errors
- `unread_body`: discards request bodies that the app leaves unread
"""
