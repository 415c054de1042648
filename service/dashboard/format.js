// Numbers as people read them. Every function returns text: a dash if the value is not known.

export const UNKNOWN = "–";

const APIS = {
  openai_chat: "OpenAI",
  openai_completions: "OpenAI completions",
  openai_embeddings: "OpenAI embeddings",
  openai_responses: "OpenAI responses",
  anthropic_messages: "Anthropic",
};

export function count(value) {
  return value === null ? UNKNOWN : Math.round(value).toLocaleString("en");
}

export function counted(value, one, many) {
  return `${count(value)} ${value === 1 ? one : many}`;
}

export function duration(seconds) {
  if (seconds === null) return UNKNOWN;
  if (seconds < 0.00995) return `${(seconds * 1000).toFixed(2)} ms`;
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 9.995) return `${seconds.toFixed(2)} s`;
  if (seconds < 99.95) return `${seconds.toFixed(1)} s`;
  return `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
}

export function uptime(seconds) {
  const minutes = Math.floor(seconds / 60);
  if (minutes < 1) return `${Math.floor(seconds)} s`;
  if (minutes < 60) return `${minutes} min`;
  if (minutes < 24 * 60) return `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  return `${Math.floor(minutes / 1440)} d ${Math.floor(minutes / 60) % 24} h`;
}

export function bytes(value) {
  if (value === null) return UNKNOWN;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return `${value >= 100 || unit === 0 ? Math.round(value) : value.toFixed(1)} ${units[unit]}`;
}

export function rate(value) {
  return value < 10 ? value.toFixed(1) : count(value);
}

export function clock(unixSeconds) {
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB");
}

export function setting(value) {
  if (value === null || value === "") return "none";
  if (Array.isArray(value)) return value.join(", ") || "none";
  if (typeof value === "object") return Object.keys(value).join(", ") || "none";
  return String(value);
}

export function api({ dialect, stream }) {
  return (APIS[dialect] ?? dialect) + (stream ? ", streamed" : "");
}
