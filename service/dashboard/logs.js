// The last lines of the server's log. They are read while the panel is shown.

import { requestJson } from "./api.js";
import { at, make, write } from "./dom.js";
import { clock } from "./format.js";

const MOST_LINES = 500;
const NEAR_END = 40;

let last = 0;
let reading = false;

function line({ time, level, logger, text }) {
  const mark = make("span", `level ${level.toLowerCase()}`, level);
  return make("li", level === "INFO" || level === "DEBUG" ? "plain-line" : "", `${clock(time)} `, mark, ` ${logger}: ${text}`);
}

function append(lines) {
  const list = at("log-lines");
  const follows = list.scrollTop + list.clientHeight > list.scrollHeight - NEAR_END;
  list.append(...lines.map(line));
  while (list.children.length > MOST_LINES) list.firstElementChild.remove();
  if (follows) list.scrollTop = list.scrollHeight;
}

export function forgetLogs() {
  last = 0;
  at("log-lines").replaceChildren();
}

export async function showLogs() {
  if (at("logs").hidden || reading) return;
  reading = true;
  try {
    const { lines } = await requestJson(`dashboard/logs?after=${last}`);
    write("log-error", "");
    if (lines.length) {
      last = lines.at(-1).number;
      append(lines);
    }
    at("log-empty").hidden = at("log-lines").children.length > 0;
    at("log-lines").hidden = at("log-lines").children.length === 0;
  } catch (error) {
    write("log-error", error instanceof TypeError ? "The server does not answer." : error.message);
  } finally {
    reading = false;
  }
}

export function startLogs() {
  at("log-trouble").addEventListener("change", ({ target }) => at("log-lines").classList.toggle("trouble", target.checked));
}
