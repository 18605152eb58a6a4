"""Names of metadata by which the server and clients tell each other of the way that a call goes."""

FOLLOWS_KEY = "backwire-follows"
"""Says that the client itself goes to the server that has a session, so that its call is not forwarded there."""

WAITS_KEY = "backwire-waits-at"
"""Says where its client waits for an answer; instead of doing the call, a server tells whether another lives there."""
