"""What the command `export lm-eval` writes for the lm-evaluation-harness."""
