"""Pictures with transparency to latents and back."""
