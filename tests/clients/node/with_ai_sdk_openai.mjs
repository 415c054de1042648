import { openai } from "@ai-sdk/openai";
import { ask } from "./ai_sdk.mjs";

await ask(openai(process.env.MODEL ?? "gpt-5"));
