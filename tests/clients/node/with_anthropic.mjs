import Anthropic from "@anthropic-ai/sdk";
import { betaZodTool } from "@anthropic-ai/sdk/helpers/beta/zod";
import { z } from "zod";
import { QUESTION, TIMES, count, save } from "./tools.mjs";

const tools = [
  betaZodTool({
    name: "save",
    description: "Saves a text.",
    inputSchema: z.object({ text: z.string() }),
    run: ({ text }) => save(text),
  }),
  betaZodTool({ name: "count", description: "Counts letters.", inputSchema: z.object({}), run: count }),
];

const client = new Anthropic();
for (let i = 0; i < TIMES; i++) {
  const messages = [{ role: "user", content: QUESTION }];
  const answer = await client.beta.messages.toolRunner({ model: "claude-opus-4-8", max_tokens: 100, messages, tools });
  console.log(answer.content[0].text);
}
