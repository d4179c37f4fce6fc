"""What is done about shared text, by rules and by people, and where every example stands then."""
