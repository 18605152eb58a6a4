"""Where a session is, in memory or on disk, and what it needs from whoever keeps its files."""
