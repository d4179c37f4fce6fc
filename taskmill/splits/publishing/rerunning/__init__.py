"""The recipe of a published benchmark, without a place of this machine, and back."""
