"""Serves the app. This is the only folder that imports Hypercorn or h11; docs/server.md lists what differs from them.

- `server`: binding, signals, start and end.
- `connections`: accepts connections, closes idle and slow ones, writes answers.
- `http1`: HTTP/1.1, and the answers to what cannot be served.
- `unread_body`: lets an answer end although its request's body was not read.
"""
