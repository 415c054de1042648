"""The prefix cache: KV state of prompts, kept in memory and on disk, for whatever begins alike."""
