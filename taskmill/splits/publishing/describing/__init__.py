"""What is said about a published benchmark: card, Croissant, citations, licences."""
