"""Pictures to what can be said of them in one word each: their style, their group, their texture."""
