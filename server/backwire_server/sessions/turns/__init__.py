"""Whose turn it is: calls that wait for a lock or for a processor, and who is served next."""
