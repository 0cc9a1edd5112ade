"""Text as states that pictures are made from."""
