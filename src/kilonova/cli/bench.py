"""`kilonova bench`: measure a served model, or run the benchmark scripts of a checkout."""

from __future__ import annotations

import typer

from kilonova.cli.bench_script import script
from kilonova.cli.bench_serve import serve

app = typer.Typer(no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure latency, throughput and cost of a served model, here or anywhere, or rerun the project's benchmarks.

    Example: kilonova bench serve --model micro --concurrency 1,4 --output bench/
    """


app.command()(serve)
app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(script)
