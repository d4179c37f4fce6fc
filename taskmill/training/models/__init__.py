"""Causal language models: where they come from, adapters, dropout, and the folders they are saved in."""
