// Reads the server's events while the page is visible, asks for the key if one is required, and shows when the server is
// gone. It uses `fetch` and not `EventSource`, which cannot send the key as a header.

const KEY = "anyclaude-key";
const SENDABLE = /^[\x21-\x7e]*$/;
const SILENCE_MS = 10_000;
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 10_000;

const at = (id) => document.getElementById(id);

async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) if (frame.startsWith("data: ")) yield JSON.parse(frame.slice(6));
  }
}

function storedKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

async function listen(signal, onStats) {
  const key = storedKey();
  if (!SENDABLE.test(key)) return "key";
  const response = await fetch("dashboard/events", {
    headers: key ? { authorization: `Bearer ${key}` } : {},
    cache: "no-store",
    signal,
  });
  if (response.status === 401) return "key";
  if (!response.ok) throw new Error((await response.json()).error.message);
  for await (const stats of readEvents(response)) {
    at("main").hidden = false;
    at("main").classList.remove("stale");
    at("notice").hidden = true;
    onStats(stats);
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
  sessionStorage.removeItem(KEY);
  at("main").hidden = true;
  at("notice").hidden = true;
  showState("key required");
  at("key-error").textContent = wrong ? "That is not a key of this server." : "";
  at("key-form").hidden = false;
  at("key").focus();
  await new Promise((resolve) => {
    at("key-form").addEventListener("submit", (event) => (event.preventDefault(), resolve()), { once: true });
  });
  sessionStorage.setItem(KEY, at("key").value.trim());
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
