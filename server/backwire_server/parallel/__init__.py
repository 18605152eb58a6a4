"""Batches in parts, which processes of this machine compute at the same time."""
