// The answers of the response cache: what each costs and how often it was used, without content.

import { requestJson } from "./api.js";
import { at, button, make, write } from "./dom.js";
import { bytes, count, counted, uptime } from "./format.js";

const SHORT_KEY = 12;

function fail(error) {
  write("cache-error", error instanceof TypeError ? "The server does not answer." : error.message);
}

async function change(path, done) {
  write("cache-error", "");
  try {
    const { removed } = await requestJson(path, { method: "DELETE" });
    write("cache-status", `${counted(removed, "answer", "answers")} removed.`);
    done?.();
  } catch (error) {
    fail(error);
  }
  await showCache();
}

function row(answer) {
  const { key, usage } = answer;
  const remove = button("plain small", "Delete", () => change(`cache/${encodeURIComponent(key)}`, focusList));
  remove.setAttribute("aria-label", `Delete the answer ${key.slice(0, SHORT_KEY)}`);
  const name = make("code", "", key.slice(0, SHORT_KEY));
  name.title = key;
  return make(
    "tr", "",
    make("td", "question-line", name, ...(answer.question ? [make("div", "quiet", answer.question)] : [])),
    make("td", "number", uptime(Math.max(0, Date.now() / 1000 - answer.stored_at))),
    make("td", "number", count(answer.hits)),
    make("td", "number", bytes(answer.bytes)),
    make("td", "number", count(usage.prompt_tokens)),
    make("td", "number", count(usage.completion_tokens)),
    make("td", "number", remove),
  );
}

// The pressed button is gone with its row.
function focusList() {
  at("cache-title").focus();
}

function describe(store) {
  const items = store.items === null ? [] : [counted(store.items, "answer", "answers")];
  const most = store.max_bytes ? ` of at most ${bytes(store.max_bytes)}` : "";
  const size = store.bytes === null ? [] : [`${bytes(store.bytes)}${most}`];
  return `${store.backend}: ${[...items, ...size].join(", ") || "not counted"}`;
}

export async function showCache() {
  try {
    const { store, answers, complete } = await requestJson("cache");
    write("cache-error", "");
    const tiers = store.tiers.length ? store.tiers : [store];
    at("cache-tiers").replaceChildren(...tiers.map((tier) => make("li", "", describe(tier))));
    at("cache-rows").replaceChildren(...answers.map(row));
    at("cache-table").hidden = at("cache-clear").hidden = answers.length === 0;
    at("cache-empty").hidden = answers.length > 0;
    write("cache-more", complete ? "" : `The store has more; ${count(answers.length)} are shown.`);
  } catch (error) {
    fail(error);
  }
}

export function startCache() {
  at("cache-refresh").addEventListener("click", () => showCache());
  at("cache-clear").addEventListener("click", () => at("cache-dialog").showModal());
  at("cache-dialog").addEventListener("close", () => {
    if (at("cache-dialog").returnValue === "clear") void change("cache", focusList);
    at("cache-dialog").returnValue = "";
  });
}
