"""The dashboard's page: files that are served as they are, without a build step or another host.

- `page.html`, `style.css`: the page; light, dark, and narrow.
- `app.js`: from one reading of `/stats` to the page's texts and charts; starts the panels.
- `chat.js`, `answer.js`, `turns.js`, `markdown.js`: the chat, a streamed answer, and both as elements.
- `running.js`, `cache.js`, `connect.js`: the requests under way, stored answers, settings of clients.
- `charts.js`, `format.js`, `dom.js`, `panels.js`: drawing, numbers as text, elements, and which panel is shown.
- `api.js`, `connection.js`: requests with the key; the events, the question for the key, the notice of a lost server.
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
    "markdown.js": "text/javascript",
    "panels.js": "text/javascript",
    "running.js": "text/javascript",
    "turns.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Media types by file name."""


def read_asset(name: str) -> bytes:
    return files(__name__).joinpath(name).read_bytes()
