from service.device.figures import DeviceFigures
from service.device.memory import UNLIMITED


class SimulatedMlx:
    """Stands in for `mlx.core` on the machine of `figures`, and wires at most `most_wired` bytes. `limits` are those
    that were set."""

    cpu, gpu = "cpu", "gpu"

    def __init__(self, figures: DeviceFigures, *, most_wired: int = UNLIMITED) -> None:
        self.metal = self
        self.limits: dict[str, int] = {}
        self._figures = figures
        self._most_wired = most_wired
        self._device = self.cpu if figures.kind == "cpu" else self.gpu

    def is_available(self) -> bool:
        return self._figures.kind == "metal"

    def default_device(self) -> str:
        return self._device

    def set_default_device(self, device: str) -> None:
        self._device = device

    def device_info(self) -> dict[str, str | int]:
        figures = self._figures
        info = {
            "device_name": figures.name,
            "max_recommended_working_set_size": figures.recommended,
            "total_memory": figures.card_total,
            "free_memory": figures.card_free,
        }
        return {key: value for key, value in info.items() if value is not None}

    def get_active_memory(self) -> int:
        return self._figures.active

    def get_cache_memory(self) -> int:
        return self._figures.buffers

    def set_cache_limit(self, limit: int) -> int:
        return self._set("buffers", limit)

    def set_wired_limit(self, limit: int) -> int:
        if limit > self._most_wired:
            raise ValueError(f"at most {self._most_wired} bytes can be wired")
        return self._set("wired", limit)

    def _set(self, name: str, limit: int) -> int:
        previous = self.limits.get(name, 0)
        self.limits[name] = limit
        return previous
