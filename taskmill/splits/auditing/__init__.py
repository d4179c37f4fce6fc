"""Checks beside the stages: finished prompts, and files that belong to no run."""
