"""Encoding: rows of the prompts table as token ids, each with its segment and whether it carries loss (no torch)."""
