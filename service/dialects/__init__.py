"""The protocols that clients speak: each turns bytes into a `ClientRequest` and answers into bytes.

`base.py` is the interface. Each folder implements it for one protocol and imports no other folder. The files here are
shared: `json_body.py` and `body_fields.py` decode hostile JSON, `tool_definitions.py`, `answer_form.py`, `media.py`,
`prompts.py` and `sampling.py` have common rules, `sse.py` frames streams.
`openai_dialect.py`, `openai_logprobs.py` and `openai_sampling.py` are shared by OpenAI's dialects.
"""
