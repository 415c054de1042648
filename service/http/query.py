from starlette.requests import Request

from service.errors import BadRequest


def read_limit(request: Request, usual: int, most: int) -> int:
    limit = request.query_params.get("limit", str(usual))
    # Python refuses to read numbers of thousands of digits.
    if not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(most)) and 1 <= int(limit) <= most):
        raise BadRequest.at("limit", f"expected a number from 1 to {most}, found '{limit[:20]}'.")
    return int(limit)
