"""One class for each path: an ASGI app, which finds the request's headers and caller in the scope's state.

- `generation`: every dialect's `POST`; from bytes to an answer and back.
- `count_tokens`, `models`, `health`: the rest of the API.
- `stats`, `metrics`, `dashboard`, `connect`, `cache`: what people and monitors look at.
- `context`: what the endpoints share.

`service.app` names the routes. `OpenRoute` marks those that need no key.
"""
