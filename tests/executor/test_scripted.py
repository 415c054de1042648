"""The executor without a model, which is also served: it may not grow with what it is asked."""

from service.executor.scripted import REMEMBERED_REQUESTS, ScriptedExecutor
from service.generation import GenerationRequest, Message


def saying(text: str) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content=text),))


async def test_it_repeats_what_it_is_told_as_far_as_it_may() -> None:
    executor = ScriptedExecutor()
    answer = await executor.submit(GenerationRequest(messages=saying("one two three").messages, max_tokens=2))
    completion = await answer.completion()
    assert completion.choices[0].text == "one two "
    assert completion.choices[0].finish_reason == "length"


async def test_only_the_last_requests_are_remembered() -> None:
    executor = ScriptedExecutor()
    for number in range(REMEMBERED_REQUESTS + 5):
        await (await executor.submit(saying(str(number)))).aclose()
    assert [request.messages[0].content for request in executor.submitted] == [
        str(number) for number in range(5, REMEMBERED_REQUESTS + 5)
    ]
