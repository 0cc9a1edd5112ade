"""Measures models that make pictures: what they were asked for against what is seen."""
