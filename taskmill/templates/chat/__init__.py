"""Chat formats as data, and how a conversation becomes the segments of a prompt."""
