import { anthropic } from "@ai-sdk/anthropic";
import { ask } from "./ai_sdk.mjs";

await ask(anthropic(process.env.MODEL ?? "claude-opus-4-8"));
