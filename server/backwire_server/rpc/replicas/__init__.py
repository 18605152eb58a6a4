"""What replicas do for each other: passing on calls of another, and lending helpers for parts of batches."""
