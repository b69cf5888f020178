"""The stand-ins of the tests have the interface of what they replace."""

from inspect import signature

import pytest

from hga_chat.engine_access import EngineAccess
from hga_engine.engine import Engine
from hga_engine.tokenizer.tokenizer import Tokenizer
from tests.support.scripted import ScriptedAccess, ScriptedEngine, ScriptedTokenizer

OWN = {"open"}
"""Methods that only tests call."""


@pytest.mark.parametrize(
    ("scripted", "real"),
    [(ScriptedAccess, EngineAccess), (ScriptedEngine, Engine), (ScriptedTokenizer, Tokenizer)],
)
def test_scripted_methods_take_the_parameters_of_the_real_ones(scripted, real):
    methods = [name for name, value in vars(scripted).items() if callable(value) and name[0] != "_"]
    assert methods
    for name in set(methods) - OWN:
        assert list(signature(getattr(scripted, name)).parameters) == list(
            signature(getattr(real, name)).parameters
        ), name


def test_every_access_to_an_engine_is_scripted():
    left = {name for name in vars(EngineAccess) if name[0] != "_"} - vars(ScriptedAccess).keys()
    assert left == {"compile_kernels"}  # called for synthetic models only
