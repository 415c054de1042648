// The requests that wait or run, with the speed of each between two readings of the statistics.

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

// Until the first token the server does not see which of the requests are read, only how many wait.
function stepOf({ prompt_tokens: prompt, written }, waiting) {
  if (written) return `writing, ${counted(written, "token", "tokens")} so far`;
  return `${waiting ? "waiting or reading" : "reading"} ${count(prompt)} tokens`;
}

function row(request, { now, engine }) {
  const outcome = make("span", `outcome ${request.outcome}`, OUTCOMES[request.outcome]);
  const speed = speedOf(request, now);
  return make(
    "tr", "",
    make("td", "", outcome),
    make("td", "step", stepOf(request, engine.waiting)),
    make("td", "number", duration(Math.max(0, now - request.came))),
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
