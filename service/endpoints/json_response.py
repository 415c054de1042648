"""JSON by msgspec as a Starlette response."""

import msgspec
from starlette.responses import Response


def json_response(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status_code=status, media_type="application/json")
