"""A published benchmark as it is written: its tables, its prompts, its manifest."""
