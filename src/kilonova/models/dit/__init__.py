"""A diffusion transformer that attends to its text by cross-attention."""
