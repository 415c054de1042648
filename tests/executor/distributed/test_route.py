"""Who connects to whom, from what `mlx.launch` says."""

import json
from pathlib import Path

import pytest

from service.executor.distributed.route import NotLaunched, Route, find_route, launched_rank


def ring(tmp_path: Path, *hosts: str) -> dict[str, str]:
    file = tmp_path / "hosts"
    file.write_text(json.dumps([[f"{host}:5000", f"{host}:5001"] for host in hosts]))
    return {"MLX_HOSTFILE": str(file), "MLX_RANK": "0"}


def test_a_ring_is_a_chain_down_from_rank_0(tmp_path: Path) -> None:
    """Every rank knows how to reach the next one, and nobody else."""
    environ = ring(tmp_path, "a", "b", "c", "d")
    assert [find_route(environ, rank, 4) for rank in range(4)] == [
        Route(rank=0, listen="a", below=(3,)),
        Route(rank=1, listen="b", below=(), upstream="c", above=2),
        Route(rank=2, listen="c", below=(1,), upstream="d", above=3),
        Route(rank=3, listen="d", below=(2,), upstream="a", above=0),
    ]


@pytest.mark.parametrize("size", range(1, 7))
def test_every_rank_has_its_place_in_the_chain(tmp_path: Path, size: int) -> None:
    environ = ring(tmp_path, *(f"host{rank}" for rank in range(size)))
    routes = [find_route(environ, rank, size) for rank in range(size)]
    chain, rank = [0], 0
    while routes[rank].below:
        (rank,) = routes[rank].below
        assert routes[rank].upstream == routes[chain[-1]].listen
        assert routes[rank].above == chain[-1]
        chain.append(rank)
    assert sorted(chain) == list(range(size))


@pytest.mark.parametrize(
    "environ", [{"MLX_JACCL_COORDINATOR": "10.0.0.1:32323"}, {"NCCL_HOST_IP": "10.0.0.1", "NCCL_PORT": "12345"}]
)
def test_where_all_reach_rank_0_they_connect_to_it(environ: dict[str, str]) -> None:
    assert [find_route(environ, rank, 3) for rank in range(3)] == [
        Route(rank=0, listen="10.0.0.1", below=(1, 2)),
        Route(rank=1, listen="10.0.0.1", below=(), upstream="10.0.0.1"),
        Route(rank=2, listen="10.0.0.1", below=(), upstream="10.0.0.1"),
    ]


def test_without_an_address_it_says_what_was_expected(tmp_path: Path) -> None:
    with pytest.raises(NotLaunched, match=r"ring, jaccl or nccl.*mlx\.launch"):
        find_route({}, 0, 3)
    with pytest.raises(NotLaunched, match="expected 3 hosts in MLX_HOSTFILE, found 2"):
        find_route(ring(tmp_path, "a", "b"), 0, 3)


@pytest.mark.parametrize("text", ["", "no json", "{}x", "[[]]", "[3]"])
def test_a_host_file_of_another_kind_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "hosts"
    file.write_text(text)
    with pytest.raises(NotLaunched, match="expected a list of addresses in MLX_HOSTFILE"):
        find_route({"MLX_HOSTFILE": str(file)}, 0, 1)


def test_the_rank_is_what_the_launcher_says() -> None:
    assert launched_rank({"MLX_RANK": "2"}) == 2
    with pytest.raises(NotLaunched, match=r"Run: mlx\.launch -n 3 --backend ring -- anyclaude serve --distributed"):
        launched_rank({})
