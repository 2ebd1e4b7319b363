"""The data plane: what an organization keeps, all of it in the schema of its own."""
