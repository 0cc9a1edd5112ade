"""Preference pairs for reward models and DPO, from answers that programs spoil and from human choices."""

from kilonova.data.preference_pairs.mixture import PairReport, build

__all__ = ["PairReport", "build"]
