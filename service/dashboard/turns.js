// The turns of the chat as elements of the page.

import { make } from "./dom.js";
import { count, counted, duration } from "./format.js";
import { render } from "./markdown.js";

const LABELS = { hit: "Hit", collapsed: "Joined", miss: "Miss", bypass: "Bypassed" };

export function questionTurn(text) {
  return make("li", "turn question", make("span", "sr", "You: "), text);
}

function work({ outcome, usage }) {
  if (outcome === "hit") return ["from the response cache: no token read or written"];
  if (!usage) return [];
  const reused = usage.prompt_tokens_details?.cached_tokens ?? 0;
  const read = usage.prompt_tokens - reused;
  return [
    ...(outcome === "collapsed" ? ["joined an answer in flight"] : []),
    `${counted(reused, "prompt token", "prompt tokens")} reused, ${count(read)} read`,
    `${count(usage.completion_tokens)} written`,
  ];
}

// The same facts as one line of text.
export function badgeText(answer) {
  const first = answer.firstSeconds === undefined ? [] : [`first token ${duration(answer.firstSeconds)}`];
  return [...work(answer), ...first, `total ${duration(answer.seconds)}`].join(" · ");
}

function badge(answer) {
  const label = make("span", `outcome ${answer.outcome}`, LABELS[answer.outcome]);
  return make("p", "badge", label, " ", make("span", "", badgeText(answer)));
}

function reasoning(text, open) {
  const folded = make("details", "reasoning", make("summary", "", "Reasoning"), make("p", "", text));
  folded.open = open;
  return folded;
}

function toolCall({ name, arguments: given }) {
  const title = make("p", "quiet", "Calls ", make("code", "", name));
  return make("div", "call", title, make("pre", "", make("code", "", given)));
}

function ending({ error, reason, stopped }) {
  if (error) return [make("p", "error", error)];
  if (stopped) return [make("p", "quiet", "Stopped.")];
  return reason === "length" ? [make("p", "quiet", "The answer reached its longest length.")] : [];
}

export function answerTurn() {
  const turn = make("li", "turn answer", make("p", "quiet waiting", "Waiting for the first token…"));
  turn.setAttribute("aria-busy", "true");
  return turn;
}

// `done` adds what is known at the end.
export function showAnswer(turn, answer, done) {
  const open = turn.querySelector(".reasoning")?.open ?? false;
  const parts = [make("span", "sr", "Model: ")];
  if (answer.reasoning) parts.push(reasoning(answer.reasoning, open));
  parts.push(...render(answer.content), ...answer.calls.filter(Boolean).map(toolCall));
  if (done) {
    parts.push(...ending(answer));
    if (answer.outcome) parts.push(badge(answer));
    turn.removeAttribute("aria-busy");
  }
  turn.replaceChildren(...parts);
}
