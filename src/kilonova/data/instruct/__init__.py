"""Conversations for supervised fine-tuning, built by rule from public data and from programs."""

from kilonova.data.instruct.mixture import BuildReport, build

__all__ = ["BuildReport", "build"]
