"""With the ring backend, calls go from rank 0 to the last rank, then to the one before it, and so on: a rank reaches
only the next one, and the last reaches rank 0. With JACCL and NCCL all ranks reach rank 0."""

import json
from collections.abc import Mapping
from pathlib import Path

import msgspec

COMMAND = "mlx.launch -n 3 --backend ring -- anyclaude serve --distributed [MODEL]"


class NotLaunched(Exception): ...


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """The rank listens on `listen` for the ranks `below`, and connects to `upstream`, the address of rank `above`."""

    rank: int
    listen: str
    below: tuple[int, ...]
    upstream: str = ""
    above: int = 0


def launched_rank(environ: Mapping[str, str]) -> int:
    """Raises `NotLaunched`."""
    rank = environ.get("MLX_RANK", "")
    if not rank.isdigit():
        raise NotLaunched(f"--distributed works only in processes that mlx.launch starts. Run: {COMMAND}")
    return int(rank)


def find_route(environ: Mapping[str, str], rank: int, size: int) -> Route:
    addresses = _ring(environ)
    if addresses is not None:
        if len(addresses) != size:
            raise NotLaunched(f"expected {size} hosts in MLX_HOSTFILE, found {len(addresses)}")
        child = (rank - 1) % size
        above = (rank + 1) % size
        return Route(
            rank=rank,
            listen=addresses[rank],
            below=(child,) if child != 0 else (),
            upstream=addresses[above] if rank else "",
            above=above if rank else 0,
        )
    leader = environ.get("MLX_JACCL_COORDINATOR", "").rpartition(":")[0] or environ.get("NCCL_HOST_IP", "")
    if not leader:
        raise NotLaunched(
            "expected a backend that names rank 0's address (ring, jaccl or nccl), found none of MLX_HOSTFILE, "
            f"MLX_JACCL_COORDINATOR and NCCL_HOST_IP. Run: {COMMAND}"
        )
    return Route(rank=rank, listen=leader, below=() if rank else tuple(range(1, size)), upstream=leader if rank else "")


def _ring(environ: Mapping[str, str]) -> list[str] | None:
    """The first address of each rank counts. `MLX_HOSTFILE` lists several as `address:port`."""
    file = environ.get("MLX_HOSTFILE")
    if not file:
        return None
    try:
        return [str(host[0]).rpartition(":")[0] for host in json.loads(Path(file).read_text())]
    except (OSError, ValueError, LookupError, TypeError) as exc:
        raise NotLaunched(
            f"expected a list of addresses in MLX_HOSTFILE ({file}), found something else: {exc}"
        ) from exc
