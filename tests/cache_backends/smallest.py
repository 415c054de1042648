from cache_backends import BackendStats, Found


class SmallestStore:
    """Somebody else's store, with no more than the protocol asks for."""

    def __repr__(self) -> str:
        return "<SmallestStore>"

    async def get(self, key: str) -> Found | None:
        return None

    async def set(self, key: str, value: bytes, *, ttl: float | None = None) -> None: ...

    async def delete(self, key: str) -> bool:
        return False

    async def clear(self) -> int:
        return 0

    async def stats(self) -> BackendStats:
        return BackendStats(backend="smallest")

    async def aclose(self) -> None: ...
