"""The published benchmark: its files, its manifest, what of it is true, and how two of them differ."""
