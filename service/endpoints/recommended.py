"""`GET /dashboard/recommended`: the recommended models, and which of them fit this machine."""

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from service.device.card import read_engines_device
from service.http.responses import json_response
from service.models.recommended import RECOMMENDED, fitting, most_usable_bytes


async def recommended(_: Request) -> Response:
    figures = read_engines_device()
    fits = fitting(figures)
    models = [
        msgspec.structs.asdict(model) | {"needed_bytes": model.needed_bytes, "fits": model in fits}
        for model in RECOMMENDED
    ]
    memory = figures.card_total or figures.total
    return json_response({"memory_bytes": memory, "usable_bytes": most_usable_bytes(figures), "models": models})
