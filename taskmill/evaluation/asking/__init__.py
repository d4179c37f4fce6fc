"""What is asked: test prompts as token ids, fitted to the context, and the rules by which each task is scored."""
