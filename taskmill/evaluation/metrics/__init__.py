"""What an answer is worth: metrics, normalisers, answer extraction, code."""
