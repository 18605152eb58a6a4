"""A server whose workers Ray runs on the nodes of a cluster, and a gateway that leads to them."""
