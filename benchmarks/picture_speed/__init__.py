"""Parts of benchmarks/canvas_speed.py."""
