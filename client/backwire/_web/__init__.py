"""The page of `backwire web`: how a server and its sessions are doing, to look at in a browser."""
