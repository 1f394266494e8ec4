from __future__ import annotations

import inspect
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from snncc.errors import BadInputError, UsageError
from snncc.frontends.constructor import build, construct, load_constructor
from snncc.frontends.import_paths import restored_paths

MODELS = """\
from torch import nn
import sibling_of_models

WIDTH = sibling_of_models.WIDTH

class Net(nn.Module):
    def __init__(self, width=WIDTH, *, depth=1):
        super().__init__()
        self.layers = nn.Sequential(*[nn.Linear(width, width) for _ in range(depth)])

def cnn(width=WIDTH, *, depth=1):
    return Net(width, depth=depth)

def fails():
    values = []
    return values[3]

def lazy():
    import late_sibling_of_models
    return nn.Identity()

def no_module():
    return 7

def torch_fails():
    return nn.Linear(-1, 1)
"""


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A models.py with two siblings, and the names they leave in ``sys.modules`` taken away.

    Examples import a sibling of theirs called ``models``, which stays imported; here it is not.
    """
    monkeypatch.delitem(sys.modules, "models", raising=False)
    (tmp_path / "sibling_of_models.py").write_text("WIDTH = 3\n")
    (tmp_path / "late_sibling_of_models.py").write_text("")
    file = tmp_path / "models.py"
    file.write_text(MODELS)
    before = set(sys.modules)
    yield file
    for name in set(sys.modules) - before:
        if name.startswith(("snncc_arch_", "models_package")) or "sibling_of_models" in name:
            del sys.modules[name]


def line_of(text: str) -> int:
    return next(i for i, line in enumerate(MODELS.splitlines(), 1) if text in line)


def test_a_file_is_loaded_with_its_siblings_and_sys_path_is_restored(models):
    before = list(sys.path)
    net = build(f"{models}:cnn", {"depth": 2})
    assert sys.path == before
    assert len(net.layers) == 2
    assert net.layers[0].in_features == 3
    assert not net.training


def test_source_lines_of_a_loaded_file_can_be_found(models):
    net = build(f"{models}:Net", {})
    assert inspect.getsourcefile(type(net)) == str(models)
    assert inspect.getsourcelines(type(net))[1] == line_of("class Net")
    assert "models" not in sys.modules


def test_files_of_the_same_name_in_different_folders_do_not_meet(models, tmp_path):
    other = tmp_path / "other" / "models.py"
    other.parent.mkdir()
    other.write_text("from torch import nn\ncnn = nn.Identity\n")
    first, second = load_constructor(f"{models}:cnn"), load_constructor(f"{other}:cnn")
    assert isinstance(first(), nn.Module)
    assert second is nn.Identity
    assert inspect.getsource(first).startswith("def cnn")


def test_a_module_is_found_in_the_working_folder_and_in_packages(models, monkeypatch):
    package = models.parent / "models_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text("from torch import nn\ntiny = nn.Identity\n")
    monkeypatch.chdir(models.parent)
    assert load_constructor("models_package.nets:tiny") is nn.Identity
    assert isinstance(build("torch.nn:Linear", {"in_features": 1, "out_features": 2}), nn.Linear)


def test_a_constructor_may_import_a_sibling_when_called(models):
    assert isinstance(build(f"{models}:lazy", {}), nn.Module)


ELSEWHERE = """\
import sys
from pathlib import Path
from torch import nn

sys.path.insert(0, str(Path(__file__).parent / "lib"))
sys.path.append(str(Path(__file__).parent / "more"))

class Late(nn.Module):
    def forward(self, x):
        import sibling_of_models_for_forward
        return sibling_of_models_for_forward.twice(x)

def net():
    import sibling_of_models_elsewhere
    return nn.Sequential(sibling_of_models_elsewhere.layer(), Late())
"""


@pytest.fixture
def elsewhere(models):
    """A file whose constructor, and whose ``forward``, import from folders that it adds itself."""
    models.write_text(ELSEWHERE)
    for folder, name, text in (
        ("lib", "elsewhere", "from torch import nn\nlayer = nn.Identity\n"),
        ("more", "for_forward", "def twice(x):\n    return 2 * x\n"),
    ):
        (models.parent / folder).mkdir()
        (models.parent / folder / f"sibling_of_models_{name}.py").write_text(text)
    return models


def test_paths_that_a_file_adds_hold_while_its_constructor_runs(elsewhere):
    before = list(sys.path)
    assert isinstance(build(f"{elsewhere}:net", {}), nn.Module)
    assert sys.path == before


def test_paths_that_a_file_adds_hold_for_forward_until_the_caller_restores_them(elsewhere):
    before = list(sys.path)
    with restored_paths():
        net = construct(f"{elsewhere}:net", {})
        assert net(torch.ones(1)).item() == 2
    assert sys.path == before


def test_paths_are_restored_where_the_constructor_raises(elsewhere):
    before = list(sys.path)
    elsewhere.write_text(ELSEWHERE.replace("import sibling_of_models_elsewhere", "1 / 0"))
    with pytest.raises(BadInputError, match="ZeroDivisionError"):
        build(f"{elsewhere}:net", {})
    assert sys.path == before


@pytest.mark.parametrize("spec", ["models.py", "models", ":fn", "models.py:", "models.py:a b", ""])
def test_a_malformed_spec_is_a_usage_error(spec):
    with pytest.raises(UsageError, match=r"expected pkg.mod:fn or path/models.py:fn"):
        load_constructor(spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("absent_folder/models.py:fn", "no such file"),
        ("absent_module:fn", "no module named 'absent_module'; install it"),
        ("torch.absent:fn", "no module named 'torch.absent'"),
        (".relative:fn", "TypeError"),
    ],
)
def test_a_missing_file_or_module_is_named(spec, message):
    with pytest.raises(BadInputError, match=message) as caught:
        load_constructor(spec)
    assert caught.value.exit_code == 6


def test_a_wrong_name_lists_what_there_is(models):
    with pytest.raises(BadInputError, match=r"no 'cn' in it; did you mean 'cnn'\? it has Net, cn"):
        load_constructor(f"{models}:cn")
    with pytest.raises(BadInputError, match="'WIDTH' is a int, not a function; it has Net, cnn"):
        load_constructor(f"{models}:WIDTH")
    models.write_text("x = 1\n")
    with pytest.raises(BadInputError, match="it has no functions or classes"):
        load_constructor(f"{models}:cnn")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("x = 1\nimport absent_module\n", r"ModuleNotFoundError at .*models\.py:2: No module"),
        ("def f(:\n", r"SyntaxError at .*models\.py:1"),
        ("x = 1\n\n1 / 0\n", r"ZeroDivisionError at .*models\.py:3: division by zero"),
        ("import sys\nsys.exit(3)\n", r"SystemExit at .*models\.py:2: 3"),
        ("import json\njson.loads('{')\n", r"JSONDecodeError at .*models\.py:2"),
        ("from .layers import x\n", r"ImportError at .*models\.py:1: attempted relative import"),
        ("import sibling_of_models\n", r"NameError at .*sibling_of_models\.py:2"),
    ],
)
def test_what_the_file_raises_is_reported_with_its_line(models, source, message):
    (models.parent / "sibling_of_models.py").write_text("\nundefined_name\n")
    models.write_text(source)
    before = list(sys.path), set(sys.modules)
    with pytest.raises(BadInputError, match=message):
        load_constructor(f"{models}:cnn")
    assert sys.path == before[0]
    assert not [name for name in set(sys.modules) - before[1] if name.startswith("snncc_arch_")]


def test_places_below_the_working_folder_are_shown_from_there(models, monkeypatch):
    monkeypatch.chdir(models.parent)
    line = line_of("values[3]")
    with pytest.raises(BadInputError, match=rf"IndexError at models\.py:{line}: list index"):
        build("models.py:fails", {})


def test_what_the_constructor_raises_is_reported_at_the_users_line(models):
    line = line_of("nn.Linear(-1, 1)")
    with pytest.raises(BadInputError, match=rf"RuntimeError at .*models\.py:{line}: "):
        build(f"{models}:torch_fails", {})


def test_wrong_arguments_show_the_signature(models):
    with pytest.raises(UsageError, match=r"unexpected .*'size'; its signature is cnn\(width=3, \*"):
        build(f"{models}:cnn", {"size": 3})
    with pytest.raises(UsageError, match=r"missing .*'in_features'; its signature is Linear\("):
        build("torch.nn:Linear", {})


def test_a_constructor_must_return_a_module(models):
    with pytest.raises(BadInputError, match=r"returned a int; it must return a torch.nn.Module"):
        build(f"{models}:no_module", {})


def test_a_folder_is_no_file():
    with pytest.raises(BadInputError, match="no such file"):
        load_constructor(f"{Path.cwd()}:fn")


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("_C_neuron", "take the nodes of the same names from spikingjelly.clock_driven.neuron"),
        ("cupy", "leave the import out: PyTorch computes nodes with backend='cupy'"),
        ("no_such_library", "it must run in plain Python first"),
    ],
)
def test_an_import_of_what_only_gpus_need_says_what_to_write_instead(tmp_path, name, instead):
    (tmp_path / "old.py").write_text(f"import {name}\n")
    with pytest.raises(BadInputError) as refused:
        construct(f"{tmp_path / 'old.py'}:net", {})
    assert f"No module named '{name}'; " in refused.value.message
    assert refused.value.message.endswith(instead) or instead in refused.value.message
