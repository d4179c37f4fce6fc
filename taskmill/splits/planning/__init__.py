"""What each task is used for, and where every example stands before any text is compared."""
