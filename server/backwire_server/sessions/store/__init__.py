"""All sessions of a server: how they are made, found, listed, put away and deleted."""
