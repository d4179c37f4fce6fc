"""How templates from strangers are run: refused by inspection, then rendered within counted limits."""
