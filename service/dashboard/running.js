// The requests that wait or run, with the progress of each and its speed between two readings of the statistics.

import { at, make } from "./dom.js";
import { api, count, counted, duration, rate } from "./format.js";

const OUTCOMES = { collapsed: "joined", miss: "miss", bypass: "bypass" };

let before = { now: 0, written: new Map() };

// Null before two readings have seen the request write.
function speedOf(request, now) {
  const earlier = before.written.get(request.request_id);
  if (earlier === undefined || !request.written || now <= before.now) return null;
  return (request.written - earlier) / (now - before.now);
}

const isUnknown = ({ read_tokens: read, written }) => read === null && !written;

function stepOf(request, { engine, requests }) {
  const { prompt_tokens: prompt, read_tokens: read, written } = request;
  if (written) return [`writing, ${counted(written, "token", "tokens")} so far`];
  if (isUnknown(request)) {
    const allWait = engine.waiting >= requests.filter(isUnknown).length;
    const step = allWait ? "waiting to read" : engine.waiting ? "waiting or reading" : "reading";
    return [`${step} ${count(prompt)} tokens`];
  }
  const bar = make("progress");
  bar.max = prompt;
  bar.value = read;
  bar.setAttribute("aria-label", "Prompt read");
  return [`reading, ${count(read)} of ${count(prompt)} tokens`, bar];
}

function row(request, stats) {
  const outcome = make("span", `outcome ${request.outcome}`, OUTCOMES[request.outcome]);
  const speed = speedOf(request, stats.now);
  return make(
    "tr", "",
    make("td", "", outcome),
    make("td", "step", ...stepOf(request, stats)),
    make("td", "number", duration(Math.max(0, stats.now - request.came))),
    make("td", "number", speed === null ? "" : rate(speed)),
    make("td", "number", count(request.prompt_tokens)),
    make("td", "", api(request)),
    make("td", "", make("code", "", request.request_id)),
  );
}

export function showRunning(stats) {
  const { now, requests } = stats;
  at("running-rows").replaceChildren(...requests.map((request) => row(request, stats)));
  at("running-table").hidden = requests.length === 0;
  at("no-running").hidden = requests.length > 0;
  before = { now, written: new Map(requests.map((request) => [request.request_id, request.written])) };
}
