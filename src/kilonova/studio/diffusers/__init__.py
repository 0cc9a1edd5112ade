"""Picture models of the diffusers library behind the studio's tasks."""
