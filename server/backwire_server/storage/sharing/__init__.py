"""A data directory that several servers use: who lives, and whose a session is. See docs/replicas.md."""
