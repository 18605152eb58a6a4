"""What a session was at one moment, as a file: when that is due, how it is written, and where copies go."""
