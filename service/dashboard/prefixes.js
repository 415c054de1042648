// The prefix cache as a tree: which beginnings prompts share, and where their state is kept. Without content.

import { requestJson } from "./api.js";
import { at, make, write } from "./dom.js";
import { bytes, count, counted } from "./format.js";

function places(branch) {
  const tokens = branch.end - branch.start;
  const place = (name, kept, size) => {
    if (!kept) return [];
    const part = kept < tokens ? `${count(kept)} tokens ` : "";
    return [size ? `${part}${name}, ${bytes(size)}` : `${part}being written to disk`];
  };
  const found = [
    ...place("in memory", branch.memory_tokens, branch.memory_bytes),
    ...place("on disk", branch.disk_tokens, branch.disk_bytes),
  ];
  return found.join("; ") || "not kept";
}

// Each bar stands at its place in the prompt; `longest` is the whole width.
function bar(branch, longest) {
  const filled = make("div", branch.memory_tokens ? "memory" : "disk");
  filled.style.marginLeft = `${(100 * branch.start) / longest}%`;
  filled.style.width = `${(100 * (branch.end - branch.start)) / longest}%`;
  return make("div", "extent", filled);
}

function item(branch, longest) {
  const shared = branch.prompts > 1 ? `shared by ${count(branch.prompts)} prompts; ` : "";
  const title = `${counted(branch.end - branch.start, "token", "tokens")} from ${count(branch.start)}`;
  const line = make("p", "", make("strong", "", title), " ", make("span", "quiet", shared + places(branch)));
  return make("li", "", line, bar(branch, longest));
}

function tree(branches) {
  const longest = Math.max(...branches.map(({ end }) => end));
  const lists = [make("ul", "tree")];
  for (const branch of branches) {
    lists.length = branch.depth + 1;
    const made = item(branch, longest);
    lists[branch.depth].append(made);
    lists.push(make("ul", ""));
    made.append(lists.at(-1));
  }
  return lists[0];
}

function describe({ model, branches, complete, detail }, several) {
  const title = several ? [make("h3", "", model)] : [];
  const empty = "Nothing is kept yet. After an answer, a prompt that begins alike reads only what is new.";
  if (!branches.length) return [...title, make("p", "quiet", detail || empty)];
  const more = complete ? [] : [make("p", "quiet", `It holds more; ${count(branches.length)} parts are shown.`)];
  return [...title, tree(branches), ...more];
}

export async function showPrefixes() {
  try {
    const { models } = await requestJson("prefix-cache");
    write("prefix-error", "");
    at("prefix-models").replaceChildren(...models.flatMap((model) => describe(model, models.length > 1)));
  } catch (error) {
    write("prefix-error", error instanceof TypeError ? "The server does not answer." : error.message);
  }
}
