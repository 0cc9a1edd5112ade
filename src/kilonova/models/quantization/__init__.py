"""Decoders with quantised linear layers: how they are made, and their layout on disk."""
