"""The operators: one record each, a file a family."""
