import { openai } from "@ai-sdk/openai";
import { ask } from "./ai_sdk.mjs";

await ask(openai("gpt-5"));
