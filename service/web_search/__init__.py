"""Web searches that this server runs for a model.

- `answer`: an answer of several generations, with the searches between them
- `searxng`: asks a SearXNG server; `domains`: which results a client wants

`service.endpoints.searching` uses it. Executors and the response cache do not know it.
"""
