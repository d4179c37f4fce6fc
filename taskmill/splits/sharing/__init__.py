"""Which text the train and the evaluation side share, by exact n-grams and by MinHash."""
