"""A model in training: its state, what is computed of it, and how steps change it."""
