"""Kilonova: a family of foundation models to train, customise, guard, measure and serve on your own machines."""

__version__ = "0.1.0"
