// One streamed answer: what has come of it so far, and how the two caches took part.

import { complaint, readEvents, request } from "./api.js";

function outcomeOf(response) {
  const status = response.headers.get("cache-status") ?? "";
  if (/;\s*hit\b/.test(status)) return "hit";
  if (/;\s*collapsed\b/.test(status)) return "collapsed";
  return /fwd=bypass/.test(status) ? "bypass" : "miss";
}

function takeCall(calls, { index, function: called = {} }) {
  calls[index] ??= { name: "", arguments: "" };
  calls[index].name += called.name ?? "";
  calls[index].arguments += called.arguments ?? "";
}

function take(answer, { choices, usage }, seconds) {
  if (usage) answer.usage = usage;
  for (const { delta, finish_reason: reason } of choices) {
    answer.content += delta.content ?? "";
    answer.reasoning += delta.reasoning_content ?? "";
    for (const call of delta.tool_calls ?? []) takeCall(answer.calls, call);
    const came = answer.content || answer.reasoning || answer.calls.length;
    if (came) answer.firstSeconds ??= seconds;
    answer.reason = reason ?? answer.reason;
  }
}

// Fills `answer` and calls `changed` after each event. Never throws: the answer's `error` and `stopped` are set instead.
export async function ask({ model, messages, signal, changed }) {
  const answer = { content: "", reasoning: "", calls: [], outcome: null, usage: null, reason: null, error: "" };
  const started = performance.now();
  const seconds = () => (performance.now() - started) / 1000;
  answer.stopped = false;
  try {
    const body = { messages, stream: true, stream_options: { include_usage: true }, ...(model && { model }) };
    const response = await request("v1/chat/completions", { method: "POST", body, signal });
    if (!response.ok) throw new Error(await complaint(response));
    answer.outcome = outcomeOf(response);
    for await (const data of readEvents(response)) {
      if (data === "[DONE]") break;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      take(answer, event, seconds());
      changed(answer);
    }
    if (!answer.reason) throw new Error("The connection broke before the answer was complete.");
  } catch (error) {
    answer.stopped = signal.aborted;
    if (!signal.aborted) answer.error = error instanceof TypeError ? "The server does not answer." : error.message;
  }
  answer.seconds = seconds();
  return answer;
}
