"""The dashboard's page: static files without a build step or another host.

- `page.html`, `style.css`: the page; light, dark and narrow
- `app.js`: from a reading of `/stats` to texts and charts
- `chat.js`, `answer.js`, `turns.js`, `markdown.js`: the chat
- `running.js`, `requests.js`, `cache.js`, `prefixes.js`, `models.js`, `logs.js`, `connect.js`: one panel, or part of
  one, each
- `charts.js`, `format.js`, `dom.js`, `panels.js`: drawing, numbers, elements, panels
- `api.js`, `connection.js`: requests with the key; events and a lost server
"""

from importlib.resources import files

PAGE = "page.html"
ASSETS = {
    PAGE: "text/html",
    "style.css": "text/css",
    "answer.js": "text/javascript",
    "api.js": "text/javascript",
    "app.js": "text/javascript",
    "cache.js": "text/javascript",
    "charts.js": "text/javascript",
    "chat.js": "text/javascript",
    "connect.js": "text/javascript",
    "connection.js": "text/javascript",
    "dom.js": "text/javascript",
    "format.js": "text/javascript",
    "logs.js": "text/javascript",
    "markdown.js": "text/javascript",
    "models.js": "text/javascript",
    "panels.js": "text/javascript",
    "prefixes.js": "text/javascript",
    "requests.js": "text/javascript",
    "running.js": "text/javascript",
    "turns.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}


def read_asset(name: str) -> bytes:
    return files(__name__).joinpath(name).read_bytes()
