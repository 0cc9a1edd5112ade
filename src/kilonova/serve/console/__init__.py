"""The console: a page for people who would rather look, and what it asks of the server beside the protocols."""
