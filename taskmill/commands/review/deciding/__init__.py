"""The state behind the review page: pairs, decisions, notes, history."""
