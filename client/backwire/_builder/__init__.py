"""The graph builder: values, functions, layers and losses, and the graph that they make."""
