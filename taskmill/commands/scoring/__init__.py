"""Scores for reading: levels, comparisons between models, tables to take away."""
