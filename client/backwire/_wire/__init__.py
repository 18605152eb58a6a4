"""Calls to a server: messages, channels, retries, and which server has a session."""
