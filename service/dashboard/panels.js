// The page's panels, of which the address names the shown one: `#chat`, `#now` and so on.

import { at } from "./dom.js";

const links = () => [...at("panels").querySelectorAll("a")];

// `opened` has a function for each panel that reads something when it is shown. Before the server is connected nothing
// is read: the returned function makes up for it.
export function startPanels(opened) {
  const show = () => {
    const names = links().map((link) => link.hash.slice(1));
    const chosen = names.includes(location.hash.slice(1)) ? location.hash.slice(1) : names[0];
    for (const link of links()) {
      const name = link.hash.slice(1);
      at(name).hidden = name !== chosen;
      if (name === chosen) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    }
    if (!at("main").hidden) opened[chosen]?.();
  };
  addEventListener("hashchange", () => {
    show();
    scrollTo(0, 0);
  });
  show();
  return show;
}
