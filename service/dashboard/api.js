// Requests to this server, with the key if one is required. Paths are relative: a proxy may serve the page under a
// prefix.

const KEY = "anyclaude-key";
const SENDABLE = /^[\x21-\x7e]*$/;

export function storedKey() {
  return sessionStorage.getItem(KEY) ?? "";
}

export function keepKey(key) {
  sessionStorage.setItem(KEY, key);
}

export function forgetKey() {
  sessionStorage.removeItem(KEY);
}

// Resolves also for an error status. A key that no header can carry is answered like a wrong one.
export async function request(path, { method = "GET", body, signal } = {}) {
  const key = storedKey();
  if (!SENDABLE.test(key)) return new Response(null, { status: 401 });
  const headers = key ? { authorization: `Bearer ${key}` } : {};
  if (body !== undefined) headers["content-type"] = "application/json";
  // With "no-store" the browser also sends `Cache-Control: no-cache`, which the response cache would obey.
  const cache = method === "GET" ? "no-store" : "default";
  return fetch(path, { method, headers, body: body && JSON.stringify(body), cache, signal });
}

// The message of the server for an error status.
export async function complaint(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `The server answered with status ${response.status}.`;
  }
}

// Like `request`, for JSON. Throws the server's message for an error status.
export async function requestJson(path, options) {
  const response = await request(path, options);
  if (!response.ok) throw new Error(await complaint(response));
  return response.json();
}

// The data of server-sent events, as text. Comments are left out.
export async function* readEvents(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    text += value;
    const frames = text.split("\n\n");
    text = frames.pop();
    for (const frame of frames) if (frame.startsWith("data: ")) yield frame.slice(6);
  }
}
