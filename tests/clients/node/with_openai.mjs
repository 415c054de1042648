import OpenAI from "openai";
import { QUESTION, TIMES, count, save } from "./tools.mjs";

const text = { type: "object", properties: { text: { type: "string" } }, required: ["text"] };
const offered = [
  { name: "save", description: "Saves a text.", parameters: text, parse: JSON.parse, function: (given) => save(given.text) },
  { name: "count", description: "Counts letters.", parameters: { type: "object", properties: {} }, function: count },
];

const model = process.env.MODEL ?? "gpt-5";
const client = new OpenAI();
for (let i = 0; i < TIMES; i++) {
  const runner = client.chat.completions.runTools({
    model,
    messages: [{ role: "user", content: QUESTION }],
    tools: offered.map((tool) => ({ type: "function", function: tool })),
  });
  console.log(await runner.finalContent());
}
