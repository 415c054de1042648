"""`GET /dashboard/recommended`: the recommended models, and which of them fit this machine."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from service.device.machine import total_bytes
from service.http.responses import json_response
from service.models.recommended import RECOMMENDED, usable_bytes


async def recommended(_: Request) -> Response:
    memory = total_bytes()
    usable = usable_bytes(memory)
    models = [
        msgspec.structs.asdict(model) | {"needed_bytes": model.needed_bytes, "fits": model.needed_bytes <= usable}
        for model in RECOMMENDED
    ]
    return json_response({"memory_bytes": memory, "usable_bytes": usable, "models": models})
