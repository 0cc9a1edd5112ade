"""Latency and throughput of a served model, measured from the client's side."""
