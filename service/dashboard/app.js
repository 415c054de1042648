// Shows the server's statistics as they come, and starts the panels.

import { requestJson } from "./api.js";
import { showCache, startCache } from "./cache.js";
import { Area, Histogram, StackedBars } from "./charts.js";
import { showModels, startChat } from "./chat.js";
import { showConnect } from "./connect.js";
import { follow } from "./connection.js";
import { at, make, write } from "./dom.js";
import { bytes, clock, count, counted, duration, rate, UNKNOWN, uptime } from "./format.js";
import { forgetLogs, showLogs, startLogs } from "./logs.js";
import { forgetModels, showRecommended, showServed } from "./models.js";
import { startPanels } from "./panels.js";
import { showPrefixes } from "./prefixes.js";
import { forgetRequests, showRequests } from "./requests.js";
import { showRunning } from "./running.js";

const KINDS = {
  hit: "Hits",
  collapsed: "Joined in flight",
  miss: "Misses",
  bypass: "Bypassed",
  failed: "Failed",
};
const RESTARTS = ["engine restart", "engine restarts"];
const TROUBLES = {
  repaired: ["repair of tool calls", "repairs of tool calls"],
  cut: ["tool call cut off", "tool calls cut off"],
  broken: ["unreadable tool call", "unreadable tool calls"],
  unknown: ["call of an unknown tool", "calls of unknown tools"],
  mismatched: ["tool call against its schema", "tool calls against their schema"],
  unclosed: ["tool call in open reasoning", "tool calls in open reasoning"],
  repeated: ["repeated tool call", "repeated tool calls"],
  looping: ["answer in a loop", "answers in a loop"],
  over_budget: ["reasoning cut at its budget", "reasonings cut at their budget"],
  unanswered: ["answer of reasoning alone", "answers of reasoning alone"],
};

const charts = {
  outcomes: new StackedBars(at("outcomes")),
  latency: new Histogram(at("latency")),
  tokens: new Area(at("tokens")),
};

function meter(id, share) {
  at(id).style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
}

const sum = (values) => values.reduce((total, value) => total + value, 0);

function show(stats) {
  showHeader(stats);
  showTiles(stats);
  showOutcomes(stats);
  showLatency(stats.latency);
  showTokens(stats);
  showRunning(stats);
  showRequests(stats);
  showServed(stats);
  void showLogs();
  void readOnce();
}

function showHeader(stats) {
  document.title = `${stats.cache.hit_rate} hits – anyclaude`;
  write("model", stats.model.id);
  write("status", stats.status);
  at("status").className = `pill ${stats.status}`;
  at("status").title = stats.detail;
  write("uptime", `up ${uptime(stats.uptime_seconds)}`);
}

function showTiles({ cache, engine, latency, memory, speed }) {
  write("hit-rate", cache.total_requests ? cache.hit_rate : UNKNOWN);
  meter("hit-meter", cache.hits / Math.max(1, cache.total_requests));
  const kept = counted(cache.cached_items, "answer kept", "answers kept");
  const total = counted(cache.total_requests, "request", "requests");
  write("hit-counts", `${count(cache.hits)} of ${total} since the start, ${kept}`);

  write("hit-latency", duration(latency.hit.median_seconds));
  const faster = latency.miss.median_seconds / latency.hit.median_seconds;
  const times = latency.hit.answers && latency.miss.answers && faster >= 2 ? `, ${count(faster)} times faster` : "";
  write("miss-latency", `a miss: ${duration(latency.miss.median_seconds)}${times}`);

  at("running").replaceChildren(`${engine.running} `, make("small", "", `of ${engine.max_concurrency}`));
  meter("running-meter", engine.running / engine.max_concurrency);
  const calls = Object.entries(TROUBLES).map(([field, names]) => [engine.tool_calls[field], names]);
  const troubles = [[engine.engine_restarts, RESTARTS], ...calls].filter(([number]) => number);
  const queue = `${engine.waiting} waiting, of at most ${count(engine.max_queue)}`;
  write("waiting", [queue, ...troubles.map(([number, names]) => counted(number, ...names))].join("; "));

  at("speed").replaceChildren(`${rate(speed.generated)} `, make("small", "", "tokens/s"));
  write("speed-note", `generated now, and ${rate(speed.read)} prompt tokens/s read`);

  write("memory", bytes(memory.engine_bytes ?? memory.process_bytes ?? memory.peak_bytes));
  const { turns, kept_bytes: turnBytes } = engine.states;
  const perTurn = turns ? `, ${bytes(turnBytes / turns)} a turn` : "";
  const prefix = memory.prefix_cache_bytes === null ? "" : `, prefix cache ${bytes(memory.prefix_cache_bytes)}${perTurn}`;
  const now = memory.engine_bytes === null ? `peak ${bytes(memory.peak_bytes)}` : `process ${bytes(memory.process_bytes)}`;
  write("memory-note", now + prefix);
}

function slotTime(stats, column) {
  const { slot_seconds: seconds, generated_tokens: slots } = stats.timeline;
  return clock(stats.now - (slots.length - 1 - column) * seconds);
}

function showOutcomes(stats) {
  const { outcomes, slot_seconds: slotSeconds } = stats.timeline;
  const used = Object.keys(KINDS).filter((kind) => kind === "hit" || kind === "miss" || sum(outcomes[kind]));
  const parts = (column) =>
    used.filter((kind) => outcomes[kind][column]).map((kind) => `${outcomes[kind][column]} ${KINDS[kind].toLowerCase()}`);
  const total = sum(used.map((kind) => sum(outcomes[kind])));
  charts.outcomes.update({
    series: Object.fromEntries(used.map((kind) => [kind, outcomes[kind]])),
    slotSeconds,
    summary: `${counted(total, "request", "requests")} in the last five minutes`,
    describe: (column) => `${slotTime(stats, column)}: ${parts(column).join(", ") || "no requests"}`,
  });
  const items = used.map((kind) => make("li", kind, `${KINDS[kind]} ${count(sum(outcomes[kind]))}`));
  at("outcomes").querySelector(".legend").replaceChildren(...items);
}

function showLatency({ bounds_seconds: bounds, hit, miss }) {
  const range = (bin) =>
    bin === bounds.length
      ? `over ${duration(bounds[bin - 1])}`
      : `${bin ? duration(bounds[bin - 1]) : "0"} to ${duration(bounds[bin])}`;
  const label = (seconds) => (seconds < 1 ? `${+(seconds * 1000).toPrecision(1)} ms` : `${+seconds.toPrecision(1)} s`);
  const decades = bounds.flatMap((bound, bin) => (bin % 3 ? [] : [[bin + 1, label(bound)]]));
  charts.latency.update({
    series: { hit: hit.counts, miss: miss.counts },
    ticks: decades,
    summary: `share of the last ${counted(hit.answers, "hit", "hits")}, ${counted(miss.answers, "miss", "misses")}`,
    describe: (bin) =>
      `${range(bin)}: ${counted(hit.counts[bin], "hit", "hits")}, ${counted(miss.counts[bin], "miss", "misses")}`,
  });
  const half = (name, { answers, median_seconds: median, p95_seconds: p95 }) =>
    answers ? `${name}: half within ${duration(median)}, 95% within ${duration(p95)}` : `${name}: none yet`;
  const items = [make("li", "hit", half("Hits", hit)), make("li", "miss", half("Misses", miss))];
  at("latency").querySelector(".legend").replaceChildren(...items);
}

function showTokens(stats) {
  const { generated_tokens: tokens, slot_seconds: slotSeconds } = stats.timeline;
  const speeds = tokens.map((slot) => slot / slotSeconds);
  charts.tokens.update({
    series: { tokens: speeds },
    slotSeconds,
    summary: `${counted(sum(tokens), "token", "tokens")} in the last five minutes`,
    describe: (column) => `${slotTime(stats, column)}: ${rate(speeds[column])} tokens/s`,
  });
}

let modelsRead = false;

function begin() {
  modelsRead = false;
  forgetRequests();
  forgetModels();
  forgetLogs();
}

async function readOnce() {
  if (modelsRead) return;
  modelsRead = true;
  openPanel();
  try {
    const { data } = await requestJson("v1/models");
    showModels(data.map(({ id }) => id));
  } catch {
    modelsRead = false; // The next event tries again.
  }
}

startChat();
startCache();
startLogs();
at("prefix-refresh").addEventListener("click", () => showPrefixes());
const openPanel = startPanels({
  cache: () => Promise.all([showCache(), showPrefixes()]),
  connect: showConnect,
  logs: showLogs,
  models: showRecommended,
});
follow({ begin, show });
