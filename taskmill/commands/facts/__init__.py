"""The papers' figures beside what this package computes: a file of published values, and functions that compute ours."""
