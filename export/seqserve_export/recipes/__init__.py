"""Training recipes: from public data to a checkpoint that export takes."""
