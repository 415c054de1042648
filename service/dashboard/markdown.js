// The part of Markdown that models use most, as DOM nodes: paragraphs, headings, lists, code and emphasis. Everything
// else, links and HTML among it, stays text.

import { copyable, make } from "./dom.js";

const FENCE = /^\s*```/;
const ITEM = /^\s*(?:([-*+])|(\d{1,9})[.)])\s+(.*)$/;
const HEADING = /^#{1,6}\s+(.*)$/;
const INLINE = /`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s](?:[^*]*[^*\s])?)\*/g;

function inline(text) {
  const nodes = [];
  let end = 0;
  for (const found of text.matchAll(INLINE)) {
    const [whole, code, strong, emphasis] = found;
    nodes.push(text.slice(end, found.index));
    if (code !== undefined) nodes.push(make("code", "", code));
    else if (strong !== undefined) nodes.push(make("strong", "", ...inline(strong)));
    else nodes.push(make("em", "", ...inline(emphasis)));
    end = found.index + whole.length;
  }
  nodes.push(text.slice(end));
  return nodes.filter((node) => node !== "");
}

// Each `take` consumes lines from `start` and returns the block and the next line's number.
function takeFence(lines, start) {
  const length = lines.slice(start + 1).findIndex((line) => FENCE.test(line));
  const end = length < 0 ? lines.length : start + 1 + length;
  return [copyable(lines.slice(start + 1, end).join("\n")), end + 1];
}

function takeList(lines, start) {
  const [, , number] = ITEM.exec(lines[start]);
  const list = make(number ? "ol" : "ul", "");
  if (number) list.start = Number(number);
  let next = start;
  for (; next < lines.length; next += 1) {
    const item = ITEM.exec(lines[next]);
    if (!item || Boolean(item[2]) !== Boolean(number)) break;
    list.append(make("li", "", ...inline(item[3])));
  }
  return [list, next];
}

const startsBlock = (line) => !line.trim() || FENCE.test(line) || ITEM.test(line) || HEADING.test(line);

function takeParagraph(lines, start) {
  let next = start + 1;
  while (next < lines.length && !startsBlock(lines[next])) next += 1;
  return [make("p", "", ...inline(lines.slice(start, next).join("\n"))), next];
}

function takeBlock(lines, start) {
  const heading = HEADING.exec(lines[start]);
  if (FENCE.test(lines[start])) return takeFence(lines, start);
  if (heading) return [make("p", "heading", ...inline(heading[1])), start + 1];
  if (ITEM.test(lines[start])) return takeList(lines, start);
  return takeParagraph(lines, start);
}

export function render(text) {
  const lines = text.split("\n");
  const blocks = [];
  let next = 0;
  while (next < lines.length) {
    if (!lines[next].trim()) {
      next += 1;
      continue;
    }
    const [block, end] = takeBlock(lines, next);
    blocks.push(block);
    next = end;
  }
  return blocks;
}
