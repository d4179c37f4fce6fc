"""Which (example, template) pairs are rendered, and which demonstrations they are shown with."""
