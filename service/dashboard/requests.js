// The requests that have ended: outcome, tokens reused and read, and a bar of their times. With traces, their content.

import { requestJson } from "./api.js";
import { at, button, make, write } from "./dom.js";
import { api, clock, count, duration, UNKNOWN } from "./format.js";

const SVG = "http://www.w3.org/2000/svg";
const OUTCOMES = { hit: "hit", collapsed: "joined", miss: "miss", bypass: "bypass" };
const LEFT = ["client_gone", "cancelled"];
const WIDTH = 120;
const HEIGHT = 10;

let newest = null;

function outcome(request) {
  const left = LEFT.includes(request.error);
  const failed = request.error && !left;
  const done = failed ? `${request.status} ${request.error}` : OUTCOMES[request.outcome] ?? UNKNOWN;
  return make("span", `outcome ${failed ? "failed" : request.outcome ?? "bypass"}`, left ? `${done}, client left` : done);
}

function part(className, from, to) {
  const rect = document.createElementNS(SVG, "rect");
  const shape = { class: className, x: from, y: 0, width: Math.max(1, to - from), height: HEIGHT, rx: 2 };
  for (const [name, value] of Object.entries(shape)) rect.setAttribute(name, value);
  return rect;
}

// The time to the first token and the time of writing, as shares of the slowest request of the list.
function course({ first_event_seconds: first, total_seconds: total }, slowest) {
  const bar = document.createElementNS(SVG, "svg");
  const x = (seconds) => (WIDTH * seconds) / slowest;
  const label = first === null ? `${duration(total)}` : `first token after ${duration(first)}, end after ${duration(total)}`;
  const attributes = { class: "course", role: "img", "aria-label": label, viewBox: `0 0 ${WIDTH} ${HEIGHT}` };
  for (const [name, value] of Object.entries(attributes)) bar.setAttribute(name, value);
  const title = document.createElementNS(SVG, "title");
  title.textContent = label;
  bar.append(title, part("before", 0, x(first ?? total)));
  if (first !== null) bar.append(part("writing", x(first), x(total)));
  return bar;
}

function prompt({ outcome: by, prompt_tokens: tokens, cached_tokens: reused }) {
  if (tokens === null) return UNKNOWN;
  if (by === "hit" || by === "collapsed") return `${count(tokens)}, none read`;
  return reused ? `${count(reused)} reused, ${count(tokens - reused)} read` : `${count(tokens)} read`;
}

async function showTrace(id) {
  write("trace-title", id);
  write("trace-text", "");
  at("trace-dialog").showModal();
  try {
    const { request, response } = await requestJson(`dashboard/traces/${encodeURIComponent(id)}`);
    write("trace-text", JSON.stringify({ request: request.body, response: response.body }, null, 2));
  } catch (error) {
    write("trace-text", error instanceof TypeError ? "The server does not answer." : error.message);
  }
}

function name(id, traced) {
  if (!traced) return make("code", "", id);
  const opener = button("plain small", id, () => showTrace(id));
  opener.setAttribute("aria-label", `Show the content of ${id}`);
  return opener;
}

function row(request, slowest, traced) {
  const retry = request.retry ? [make("div", "quiet", `the client's retry ${request.retry}`)] : [];
  return make(
    "tr", "",
    make("td", "", clock(request.came)),
    make("td", "", outcome(request), ...retry),
    make("td", "number", duration(request.total_seconds)),
    make("td", "", course(request, slowest)),
    make("td", "number", prompt(request), ...(request.reread ? [make("div", "quiet", request.reread)] : [])),
    make("td", "number", count(request.completion_tokens)),
    make("td", "", api(request)),
    make("td", "", name(request.request_id, traced)),
  );
}

export function forgetRequests() {
  newest = null;
}

// Written anew only after a change: somebody may be selecting text.
export function showRequests({ recent, settings }) {
  const traced = settings["debug.level"] >= 2;
  const latest = recent.length ? recent[0].request_id : "";
  if (latest === newest) return;
  newest = latest;
  const slowest = Math.max(1e-6, ...recent.map((request) => request.total_seconds));
  at("recent").replaceChildren(...recent.map((request) => row(request, slowest, traced)));
  at("no-recent").hidden = recent.length > 0;
}
