"""The journal of a session: what is written, how it is read again, and what a crash or a loss of power leaves."""
