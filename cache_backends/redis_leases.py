from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from redis.asyncio import Redis

# Compare and set: a delayed holder must not take another's lease.
_KEEP = """
local held = redis.call('HGET', KEYS[1], 'holder')
if held and held ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'note', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
_ACQUIRE = """
local note = redis.call('HGET', KEYS[1], 'note')
if note then return note end
redis.call('HSET', KEYS[1], 'holder', ARGV[1], 'note', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return false
"""
_RELEASE = "if redis.call('HGET', KEYS[1], 'holder') == ARGV[1] then redis.call('UNLINK', KEYS[1]) end"


class RedisLeases:
    """`call` runs a command with the backend's timeout and circuit breaker."""

    def __init__(self, prefix: str, call: "Callable[[Callable[[Redis], Awaitable[Any]]], Awaitable[Any]]") -> None:
        # The prefix differs from that of the values, which are counted and cleared.
        self._prefix = f"lease:{prefix}"
        self._call = call

    async def acquire(self, key: str, holder: str, note: str, *, ttl: float) -> str | None:
        theirs = await self._run(_ACQUIRE, key, holder, note, _milliseconds(ttl))
        return theirs.decode(errors="replace") if isinstance(theirs, bytes) else None

    async def keep(self, key: str, holder: str, note: str, *, ttl: float) -> bool:
        return bool(await self._run(_KEEP, key, holder, note, _milliseconds(ttl)))

    async def release(self, key: str, holder: str) -> None:
        await self._run(_RELEASE, key, holder)

    async def _run(self, script: str, key: str, *arguments: str) -> object:
        return await self._call(lambda client: client.eval(script, 1, self._prefix + key, *arguments))


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
