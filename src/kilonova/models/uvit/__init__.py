"""U-ViT: a transformer to which everything is a token."""
