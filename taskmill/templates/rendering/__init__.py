"""What a template makes of an example: the library, PromptSource's semantics, the variants of a task."""
