"""The mixture's parts: train rows, shares and sizes, and the function from positions to prompts."""
