import { generateText, stepCountIs, tool } from "ai";
import { z } from "zod";
import { QUESTION, TIMES, count, save } from "./tools.mjs";

const tools = {
  save: tool({
    description: "Saves a text.",
    inputSchema: z.object({ text: z.string() }),
    execute: ({ text }) => save(text),
  }),
  count: tool({ description: "Counts letters.", inputSchema: z.object({}), execute: count }),
};

globalThis.AI_SDK_LOG_WARNINGS = false; // it would warn of a model that it does not know

export async function ask(model) {
  for (let i = 0; i < TIMES; i++) {
    const { text } = await generateText({ model, tools, prompt: QUESTION, stopWhen: stepCountIs(5) });
    console.log(text);
  }
}
