"""What decisions would cost: the leak graph of all tasks, prices, and the proposal of least loss."""
