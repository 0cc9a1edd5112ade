import pytest
import torch

from kilonova.nn.compile import compile_lazily


def test_compiles_once_and_at_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = []
    monkeypatch.setattr(torch, "compile", lambda function, **given: settings.append(given) or function)

    @compile_lazily
    def twice(x: int) -> int:
        return 2 * x

    assert settings == []
    assert (twice(2), twice(3), twice.__name__) == (4, 6, "twice")
    assert settings == [{"dynamic": None}]
