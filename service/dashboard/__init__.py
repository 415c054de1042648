"""The dashboard's page: files that are served as they are, without a build step or another host.

- `page.html`, `style.css`: the page; light, dark, and narrow.
- `app.js`: from one reading of `/stats` to the page's texts and charts.
- `charts.js`, `format.js`: drawing, and numbers as text.
- `connection.js`: reads the events, asks for the key, shows when the server is gone.
"""

from importlib.resources import files

PAGE = "page.html"
ASSETS = {
    PAGE: "text/html",
    "style.css": "text/css",
    "app.js": "text/javascript",
    "charts.js": "text/javascript",
    "connection.js": "text/javascript",
    "format.js": "text/javascript",
    "icon.svg": "image/svg+xml",
}
"""Media types by file name."""


def read_asset(name: str) -> bytes:
    return files(__name__).joinpath(name).read_bytes()
