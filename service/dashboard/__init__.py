"""The dashboard's page, as files that are served as they are: no build step, nothing from another host."""

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
"""The files by name, with their media types."""


def read_asset(name: str) -> bytes:
    return files(__name__).joinpath(name).read_bytes()
