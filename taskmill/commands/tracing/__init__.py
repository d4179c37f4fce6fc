"""Was a text trained on: the command `trace`."""
