"""Run as a process and killed while it writes: sets values that say of themselves what they are, and prints each key
once `set` has returned."""

import asyncio
import hashlib
import sys
from itertools import count
from pathlib import Path

from cache_backends.disk import DiskBackend


def written_value(key: str) -> bytes:
    """The one right value of a key, of 1 to 50 KB."""
    digest = hashlib.sha256(key.encode()).digest()
    return digest * (32 + int.from_bytes(digest[:2]) % 1600)


async def main(folder: str, start: int) -> None:
    backend = DiskBackend(Path(folder), max_bytes=4 * 1024**2)
    for number in count(start):
        await backend.set(f"k{number}", written_value(f"k{number}"))
        sys.stdout.write(f"k{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
