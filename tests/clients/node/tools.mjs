import { readFileSync, writeFileSync } from "node:fs";

export const QUESTION = "Save the word mango, then count its letters.";
export const TIMES = 2;

export function save(text) {
  writeFileSync("saved", text);
  return "saved";
}

export function count() {
  return `${readFileSync("saved", "utf8").length} letters`;
}
