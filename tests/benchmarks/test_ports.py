"""Ports for servers that start later."""

import socket

from benchmarks.ports import PortRange, free_port

FIRST_OF_THE_SYSTEM = 32_768  # on Linux; macOS begins at 49,152


def test_the_system_picks_no_such_port_itself() -> None:
    assert all(free_port() < FIRST_OF_THE_SYSTEM for _ in range(5))


def test_each_call_returns_another_port() -> None:
    assert len({free_port() for _ in range(50)}) == 50


def test_a_used_port_is_left_out() -> None:
    with socket.create_server(("127.0.0.1", free_port())) as listener:
        used: int = listener.getsockname()[1]
        assert all(PortRange(used, 10).free(2) != used for _ in range(20))
