"""What is counted and measured of a server, and how it is told."""
