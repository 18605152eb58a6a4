"""The second executor: programs of the engine traced to JAX and compiled whole. Needs the extra `jax`."""
