// The settings with which each client uses this server, to copy. The key itself is filled in when they are copied.

import { requestJson, storedKey } from "./api.js";
import { at, copyable, make, write } from "./dom.js";

function entry({ title, install, script }, keyPlace) {
  const filledIn = () => (keyPlace ? script.replaceAll(keyPlace, storedKey()) : script);
  const parts = [make("summary", "", make("h3", "", title))];
  if (install) parts.push(make("p", "quiet", "To install it:"), copyable(install));
  parts.push(make("p", "quiet", "In the terminal where you use it:"), copyable(script, filledIn));
  return make("details", "card client", ...parts);
}

let shown = "";

export async function showConnect() {
  const root = new URL(".", location.href).href;
  try {
    const { clients, key } = await requestJson(`dashboard/connect?root=${encodeURIComponent(root)}`);
    write("connect-error", "");
    // Somebody may have opened some of them, or be selecting text.
    const scripts = JSON.stringify(clients);
    if (scripts === shown) return;
    shown = scripts;
    write("connect-root", root.replace(/\/$/, ""));
    at("connect-key").hidden = !key;
    at("connect-clients").replaceChildren(...clients.map((client) => entry(client, key)));
    at("connect-clients").firstElementChild.open = true;
  } catch (error) {
    write("connect-error", error instanceof TypeError ? "The server does not answer." : error.message);
  }
}
