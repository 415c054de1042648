"""What `anyclaude doctor` looks at."""
