"""Packs, batches and steps: which documents of the mixture make which forward pass of which update (no torch)."""
