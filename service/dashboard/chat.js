// The chat. Its turns live in this page alone, until it is loaded again.

import { storedKey } from "./api.js";
import { ask } from "./answer.js";
import { at, button, copyable, make } from "./dom.js";
import { answerTurn, badgeText, questionTurn, showAnswer } from "./turns.js";

const EXAMPLES = ["What is the capital of France?", "Explain recursion in two sentences.", "Write a haiku about caches."];
const NEAR_END = 120;

const messages = [];
let asking = null;

function messageOf({ content, reasoning }) {
  return { role: "assistant", content, ...(reasoning && { reasoning_content: reasoning }) };
}

function showControls() {
  at("send").hidden = asking !== null;
  at("stop").hidden = asking === null;
  at("again").hidden = at("fresh").hidden = asking !== null || messages.length === 0;
  at("chat-empty").hidden = at("turns").children.length > 0;
}

// Follows the end of the answer, unless the reader has scrolled away from it.
function following(change) {
  const follows = innerHeight + scrollY > document.documentElement.scrollHeight - NEAR_END;
  change();
  if (follows) scrollTo(0, document.documentElement.scrollHeight);
}

// Shows at most one state of the answer per frame.
function framewise(show) {
  let latest = null;
  return (answer) => {
    if (latest === null) requestAnimationFrame(() => (show(latest), (latest = null)));
    latest = answer;
  };
}

async function answerLast() {
  const turn = answerTurn();
  asking = new AbortController();
  const { signal } = asking;
  following(() => at("turns").append(turn));
  showControls();
  let ended = false;
  const changed = framewise((answer) => ended || following(() => showAnswer(turn, answer, false)));
  const answer = await ask({ model: at("chat-model").value, messages, signal, changed });
  ended = true;
  following(() => showAnswer(turn, answer, true));
  asking = null;
  if (answer.content || answer.reasoning || answer.calls.length) messages.push(messageOf(answer));
  at("chat-status").textContent = answer.error || `Answered: ${badgeText(answer)}`;
  showControls();
}

// A question that was not answered is asked again or replaced by the next one.
function dropUnanswered() {
  if (messages.at(-1)?.role !== "user") return;
  messages.pop();
  at("turns").lastElementChild.remove();
  at("turns").lastElementChild.remove();
}

function send(text) {
  const content = text.trim();
  if (!content || asking) return;
  dropUnanswered();
  messages.push({ role: "user", content });
  at("question").value = "";
  following(() => at("turns").append(questionTurn(content)));
  void answerLast();
}

function stop() {
  asking?.abort();
  at("question").focus();
}

function askAgain() {
  if (messages.at(-1)?.role === "assistant") messages.pop();
  at("turns").lastElementChild.remove();
  void answerLast();
}

function startAnew() {
  messages.length = 0;
  at("turns").replaceChildren();
  showControls();
  at("question").focus();
}

function curlLine() {
  const url = new URL("v1/chat/completions", location.href);
  const key = storedKey() ? ` -H "Authorization: Bearer $ANYCLAUDE_API_KEY"` : "";
  const body = JSON.stringify({ messages: [{ role: "user", content: EXAMPLES[0] }] });
  return `curl ${url}${key} -H 'Content-Type: application/json' -d '${body}'`;
}

// The list of models is asked for once per connection: another server may serve others.
export function showModels(models) {
  const chosen = at("chat-model").value;
  at("chat-model").replaceChildren(...models.map((id) => make("option", "", id)));
  if (models.includes(chosen)) at("chat-model").value = chosen;
  at("model-choice").hidden = models.length < 2;
  at("chat-curl").replaceChildren(copyable(curlLine()));
}

export function startChat() {
  at("examples").replaceChildren(...EXAMPLES.map((text) => button("plain", text, () => send(text))));
  at("chat-form").addEventListener("submit", (event) => (event.preventDefault(), send(at("question").value)));
  at("question").addEventListener("keydown", (event) => {
    if (event.key === "Escape" && asking) stop();
    // While an input method composes a word, Enter belongs to it.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send(at("question").value);
  });
  at("stop").addEventListener("click", stop);
  at("again").addEventListener("click", askAgain);
  at("fresh").addEventListener("click", startAnew);
  showControls();
}
