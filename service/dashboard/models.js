// The served models with their sizes, the settings in force, and recommended models.

import { requestJson } from "./api.js";
import { at, button, copyable, make, write } from "./dom.js";
import { bytes, count, setting } from "./format.js";

let shown = "";
let settingsShown = false;

async function change(name, action) {
  write("models-error", "");
  write("models-status", `${name}: ${action}ing…`);
  try {
    await requestJson(`v1/models/${encodeURIComponent(name)}/${action}`, { method: "POST" });
    write("models-status", `${name}: ${action}ed.`);
  } catch (error) {
    write("models-status", "");
    write("models-error", error instanceof TypeError ? "The server does not answer." : error.message);
  }
  at("models-title").focus();
}

function stateOf(model) {
  if (model.unloaded) return "unloaded: the next request loads it";
  if (model.running + model.waiting) return `${model.status}, ${model.running} running, ${model.waiting} waiting`;
  return model.detail || model.status;
}

function row(model) {
  const action = model.loaded ? "unload" : "load";
  const cell = make("td", "number");
  if (model.managed && model.status !== "loading") {
    const act = button("plain small", action === "load" ? "Load" : "Unload", () => change(model.name, action));
    act.setAttribute("aria-label", `${action === "load" ? "Load" : "Unload"} ${model.name}`);
    cell.append(act);
  }
  return make(
    "tr", "",
    make("td", "name", model.name),
    make("td", "step", stateOf(model)),
    cell,
    make("td", "number", bytes(model.weight_bytes)),
    make("td", "number", bytes(model.memory_bytes)),
    make("td", "number", count(model.context_length)),
  );
}

function settingText(value, unset) {
  if (value !== null) return setting(value);
  return unset === undefined || unset === "none" ? "none" : `${setting(unset)} (not set)`;
}

function showSettings({ model, settings, unset, version }) {
  if (settingsShown) return;
  settingsShown = true;
  const rows = [
    ["anyclaude", version],
    ["served model", model.id],
    ["model fingerprint", model.fingerprint],
    ["context length", `${count(model.context_length)} tokens`],
    ...Object.entries(settings).map(([key, value]) => [
      key.replace("backends.vllm-mlx.", ""),
      settingText(value, unset[key]),
    ]),
  ];
  at("settings").replaceChildren(...rows.flatMap(([key, value]) => [make("dt", "", key), make("dd", "", value)]));
}

export function forgetModels() {
  shown = "";
  settingsShown = false;
}

// Written anew only after a change: a button may have the focus.
export function showServed(stats) {
  showSettings(stats);
  const state = JSON.stringify(stats.models);
  if (state === shown) return;
  shown = state;
  at("models-rows").replaceChildren(...stats.models.map(row));
}

function recommendation(model) {
  const sizes = `${bytes(model.size_bytes)} to download, ${bytes(model.needed_bytes)} of memory, ${count(model.context_length)} tokens`;
  const parts = [make("h3", "", model.id), make("p", "quiet", `${model.good_for}; ${sizes}`)];
  if (model.fits) parts.push(copyable(`anyclaude models pull ${model.id}`));
  else parts.push(make("p", "quiet", "Too large for this machine."));
  return make("li", "", ...parts);
}

export async function showRecommended() {
  try {
    const { memory_bytes: memory, usable_bytes: usable, models } = await requestJson("dashboard/recommended");
    write("recommended-memory", `The server's machine has ${bytes(memory)} of memory; models can use ${bytes(usable)}.`);
    at("recommended").replaceChildren(...models.map(recommendation));
  } catch (error) {
    write("models-error", error instanceof TypeError ? "The server does not answer." : error.message);
  }
}
