"""Programs to learn from: each is one file, and runs against a server."""
