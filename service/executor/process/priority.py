import os

from service.device.figures import DeviceKind

# The server then gets three quarters of a core that it wants together with one thread of the engine.
NICENESS_ON_CPU = 5


def added_niceness(kind: DeviceKind) -> int:
    # On a GPU the engine needs little of the CPU, but a delay would leave the GPU without work.
    return NICENESS_ON_CPU if kind == "cpu" else 0


def give_way_to_the_server(kind: DeviceKind) -> None:
    """Changes all threads of all processes in this process's group."""
    os.setpriority(os.PRIO_PGRP, 0, os.getpriority(os.PRIO_PGRP, 0) + added_niceness(kind))
