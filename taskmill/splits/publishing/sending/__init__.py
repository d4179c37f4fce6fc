"""A published benchmark on its way to the Hub."""
