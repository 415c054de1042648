from collections.abc import Iterable

from service.dialects.openai_responses.kept import CallersResponses, KeptResponses, decode_kept, encode_kept
from service.errors import ResponseGone
from service.response_cache.documents import DocumentStore

KEPT_SECONDS = 30 * 86_400.0


class StoredResponses:
    """The kept responses in memory, and in the response cache's store, where they survive a restart."""

    def __init__(self, kept: KeptResponses, documents: DocumentStore) -> None:
        self._kept = kept
        self._documents = documents

    async def load(self, caller: str, response_ids: Iterable[str]) -> CallersResponses:
        """Reads those into memory that are not there. Missing ones stay missing."""
        for response_id in response_ids:
            if self._kept.get(caller, response_id) is not None:
                continue
            document = await self._documents.get(_name(caller, response_id))
            kept = None if document is None else decode_kept(document)
            if kept is not None:
                self._kept.restore(caller, response_id, kept)
        return self._kept.of(caller)

    async def save(self) -> None:
        for (caller, response_id), kept in self._kept.take_new().items():
            await self._documents.put(_name(caller, response_id), encode_kept(kept))

    async def remove(self, caller: str, response_id: str) -> None:
        """Raises `ResponseGone`."""
        in_memory = self._kept.remove(caller, response_id)
        if not await self._documents.remove(_name(caller, response_id)) and not in_memory:
            raise ResponseGone(response_id)


def _name(caller: str, response_id: str) -> str:
    return f"response {caller} {response_id}"
