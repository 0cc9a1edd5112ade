"""Kilonova's engine beside others on one machine: models, conversions, one runner an engine, and the rounds they take.

Every engine runs in a process and an environment of its own. Runners (`run_*.py`) import nothing of Kilonova's but
`job.py` and `bandwidth.py`, which need NumPy alone.
"""
