"""Mistakes in templates: by their text alone, and by what they make of real records."""
