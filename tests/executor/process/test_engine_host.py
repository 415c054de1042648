"""The engine's side of the socket, without a process."""

import asyncio

from service.executor.process.call_messages import AbortCall, SubmitCall
from service.executor.process.engine_host import EngineHost
from service.executor.process.frames import encode_frame
from tests.executor.engines import question, until


async def test_a_call_that_is_aborted_before_its_first_step_is_forgotten() -> None:
    host = EngineHost()
    host.connection_made(asyncio.Transport())
    host.data_received(encode_frame([SubmitCall(0, question()), AbortCall(0)]))
    assert host._calls
    await until(lambda: not host._calls)
