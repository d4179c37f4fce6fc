"""How what was rendered becomes the segments of a prompt."""
