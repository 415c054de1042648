// Reads the server's events while the page is visible, asks for the key if one is required, and shows when the server is
// gone. It uses `fetch` and not `EventSource`, which cannot send the key as a header.

import { complaint, forgetKey, keepKey, readEvents, request, storedKey } from "./api.js";
import { at } from "./dom.js";

const SILENCE_MS = 10_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

async function listen(signal, onStats) {
  const response = await request("dashboard/events", { signal });
  if (response.status === 401) return "key";
  if (!response.ok) throw new Error(await complaint(response));
  for await (const event of readEvents(response)) {
    at("main").hidden = false;
    at("main").classList.remove("stale");
    at("notice").hidden = true;
    onStats(JSON.parse(event));
  }
  throw new Error("The server has stopped.");
}

function showState(text) {
  at("status").textContent = text;
  at("status").className = "pill";
}

function lose(message) {
  showState("not connected");
  at("main").classList.add("stale");
  at("notice").textContent = message;
  at("notice").hidden = false;
}

// Resolves when the page is visible again and `milliseconds` have passed.
async function pause(milliseconds) {
  await new Promise((resolve) => setTimeout(resolve, milliseconds));
  if (document.hidden) {
    await new Promise((resolve) => document.addEventListener("visibilitychange", resolve, { once: true }));
  }
}

async function askForKey() {
  const wrong = storedKey() !== "";
  forgetKey();
  at("main").hidden = true;
  at("notice").hidden = true;
  showState("key required");
  at("key-error").textContent = wrong ? "That is not a key of this server." : "";
  at("key-form").hidden = false;
  at("key").focus();
  await new Promise((resolve) => {
    at("key-form").addEventListener("submit", (event) => (event.preventDefault(), resolve()), { once: true });
  });
  keepKey(at("key").value.trim());
  at("key").value = "";
  at("key-form").hidden = true;
}

// One connection, until it breaks, falls silent, or the page is hidden. Returns "key" if another key is needed.
async function connect(show) {
  const aborting = new AbortController();
  const leave = () => document.hidden && aborting.abort();
  let silence;
  const listenOn = () => {
    clearTimeout(silence);
    silence = setTimeout(() => aborting.abort(), SILENCE_MS);
  };
  document.addEventListener("visibilitychange", leave);
  listenOn();
  try {
    return await listen(aborting.signal, (stats) => {
      listenOn();
      show(stats);
    });
  } finally {
    clearTimeout(silence);
    document.removeEventListener("visibilitychange", leave);
    aborting.abort();
  }
}

// Never returns. `begin` is called before each connection: another server may answer this time.
export async function follow({ begin, show }) {
  let wait = FIRST_PAUSE_MS;
  for (;;) {
    begin();
    try {
      const shown = (stats) => {
        wait = FIRST_PAUSE_MS;
        show(stats);
      };
      if ((await connect(shown)) === "key") await askForKey();
    } catch (error) {
      const away = error instanceof TypeError || error.name === "AbortError";
      if (!document.hidden) lose(`${away ? "The server does not answer." : error.message} Trying again…`);
      await pause(wait);
      wait = Math.min(LONGEST_PAUSE_MS, wait * 2);
    }
  }
}
