// Elements of the page. Everything is set as text: no word of the server, a model or a client is read as HTML.

const COPIED_MS = 1500;

export const at = (id) => document.getElementById(id);

export function write(id, text) {
  if (at(id).textContent !== text) at(id).textContent = text;
}

export function make(tag, className, ...content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.append(...content);
  return made;
}

export function button(className, label, act) {
  const made = make("button", className, label);
  made.type = "button";
  made.addEventListener("click", act);
  return made;
}

// A block of code with a button that copies it, or what `copied` makes of it. Browsers have a clipboard for HTTPS and
// for this machine only.
export function copyable(text, copied = () => text) {
  const block = make("div", "copyable", make("pre", "", make("code", "", text)));
  block.firstChild.tabIndex = 0;
  if (navigator.clipboard) {
    const copy = button("plain copy", "Copy", async () => {
      await navigator.clipboard.writeText(copied());
      copy.textContent = "Copied";
      setTimeout(() => (copy.textContent = "Copy"), COPIED_MS);
    });
    block.append(copy);
  }
  return block;
}
