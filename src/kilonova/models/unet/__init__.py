"""A convolutional UNet with transformers at its lower levels."""
