"""Scores from single values: the hierarchy of means, intervals, comparisons."""
