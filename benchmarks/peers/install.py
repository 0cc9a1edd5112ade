"""Creates the peers' environments: install.py [PEER ...], all but vllm unless named. Standard library alone."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).parent
ENVIRONMENTS = HERE / ".venvs"
# vLLM's is the largest by far, and the only one that others do not need.
DEFAULT = ("ctranslate2", "onnxruntime", "openvino", "llamacpp", "convert")
TORCH = "torch==2.13.0"
# vLLM's wheel pulls these in for pictures and sound, in versions that do not fit its PyTorch.
UNWANTED_WITH_VLLM = ("torchvision", "torchaudio", "torchcodec")


def install(peer: str) -> None:
    """Create the environment of `peer` anew, unless it is complete already."""
    requirements = HERE / "requirements" / f"{peer}.txt"
    directory = ENVIRONMENTS / peer
    stamp = directory / "installed.txt"
    wanted = requirements.read_text(encoding="utf-8")
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        print(f"{peer}: is there")
        return
    print(f"{peer}: installing into {directory}", flush=True)
    venv.create(directory, with_pip=True, clear=True)
    environment = dict(os.environ)
    if peer == "llamacpp":
        # Compiled for this machine. Its AMX kernels have been seen to fault; AVX-512 and AVX2 ones take their place.
        environment["CMAKE_ARGS"] = "-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF"
        if platform.machine() == "x86_64":
            flags = "-mno-amx-tile -mno-amx-int8 -mno-amx-bf16"
            environment |= {"CFLAGS": flags, "CXXFLAGS": flags}
    if peer == "convert":
        _pip(directory, environment, "install", TORCH)
    _pip(directory, environment, "install", "-r", str(requirements))
    if peer == "vllm":
        _pip(directory, environment, "uninstall", "--yes", *UNWANTED_WITH_VLLM)
    stamp.write_text(wanted, encoding="utf-8")


def _pip(directory: Path, environment: dict[str, str], *arguments: str) -> None:
    python = directory / "bin" / "python"
    command = [str(python), "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    subprocess.run(command, env=environment, check=True)


def main() -> None:
    """Install what is named; one that fails does not keep the others from being installed."""
    known = sorted(path.stem for path in (HERE / "requirements").glob("*.txt"))
    peers = sys.argv[1:] or list(DEFAULT)
    if unknown := [peer for peer in peers if peer not in known]:
        raise SystemExit(f"no peer {unknown[0]!r}; known: {', '.join(known)}")
    failed = []
    for peer in peers:
        try:
            install(peer)
        except subprocess.CalledProcessError as error:
            print(f"{peer}: {error}", file=sys.stderr)
            failed.append(peer)
    if failed:
        raise SystemExit(f"not installed: {', '.join(failed)}; the benchmarks measure those that are")


if __name__ == "__main__":
    main()
