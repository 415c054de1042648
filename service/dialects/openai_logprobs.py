import msgspec

from service.generation import TokenLogprob

# JSON has no infinity. OpenAI writes this number for "very unlikely".
LOWEST_LOGPROB = -9999.0


class TopLogprobOfToken(msgspec.Struct):
    token: str
    bytes: list[int]
    logprob: float


class LogprobOfToken(msgspec.Struct):
    token: str
    bytes: list[int]
    logprob: float
    top_logprobs: list[TopLogprobOfToken]


def logprobs_of_tokens(logprobs: tuple[TokenLogprob, ...]) -> list[LogprobOfToken]:
    return [
        LogprobOfToken(
            token.token,
            list(token.token_bytes),
            max(LOWEST_LOGPROB, token.logprob),
            [TopLogprobOfToken(t.token, list(t.token_bytes), max(LOWEST_LOGPROB, t.logprob)) for t in token.top],
        )
        for token in logprobs
    ]
