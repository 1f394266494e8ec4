"""Models of energy in TOML: those of the package, a user's own, and what is wrong with one."""

import os

import pytest

from snncc.errors import BadInputError, UsageError
from snncc.runtime.profile.models import models_named

OWN = """
[mine]
weight_bits = 4
multiply_pj = 0.05
add_pj = 0.02
sources = ["measured"]
"""


@pytest.fixture
def own(tmp_path):
    def write(text):
        path = tmp_path / "own.toml"
        path.write_text(text)
        return str(path)

    return write


def faults(path):
    with pytest.raises(BadInputError) as caught:
        models_named([path])
    return [(fault.node, fault.what) for fault in caught.value.faults]


def test_every_model_of_the_package_says_where_it_comes_from():
    names = ["45nm-fp32", "45nm-int8", "45nm-fp32+memory", "45nm-int8+memory"]
    names += ["spikingformer", "spike-driven-transformer", "spikeyolo"]
    for model in models_named(names):
        assert model.description
        assert model.sources
        assert model.constants


def test_memory_changes_nothing_else():
    for name in ("45nm-fp32", "45nm-int8"):
        plain, memory = models_named([name, f"{name}+memory"])
        same = {key: memory.constants[key] for key in plain.constants}
        assert same == plain.constants
        assert memory.constants.keys() - plain.constants.keys() == {
            "memory_pj_per_bit", "state_bits",
        }  # fmt: skip


def test_a_file_of_ones_own(own):
    found = models_named(["45nm-int8", own(OWN)])
    assert [m.name for m in found] == ["45nm-int8", "mine"]
    assert found[1].multiply(2, 4) == pytest.approx(0.025)
    assert not found[1].has_memory


def test_an_unknown_model_is_named_with_those_that_there_are():
    with pytest.raises(UsageError, match="no such model; there are 45nm-fp32, 45nm-fp32\\+memory"):
        models_named(["45nm-fp16"])


def test_all_that_is_missing_is_told_at_once(own):
    text = '[a]\nweight_bits = 8\nmemory_pj_per_bit = 0.1\n[b]\naccounting = "spikeyolo"'
    assert faults(own(text)) == [
        ("a", "multiply_pj is missing"),
        ("a", "add_pj is missing"),
        ("a", "state_bits is missing"),
        ("b", "mac_pj is missing"),
        ("b", "ac_pj is missing"),
    ]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("add_pj = -1.0", "add_pj is -1.0"),
        ("add_pj = nan", "add_pj is nan"),
        ("add_pj = inf", "add_pj is inf"),
        ("add_pj = true", "add_pj is True"),
        ('add_pj = "0.1"', "add_pj is '0.1'"),
        ("weight_bits = 0", "weight_bits is 0"),
        ("weight_bits = 8.0", "weight_bits is 8.0"),
        ("sources = [1]", "sources is [1]"),
        ("mac_pj = 4.6", "mac_pj is not known"),
        ('accounting = "mine"', "accounting is 'mine'"),
        ("accounting = []", "accounting is []"),
    ],
)
def test_a_wrong_constant_is_told(own, line, what):
    key = line.split(" = ")[0]
    kept = "\n".join(row for row in OWN.splitlines() if not row.startswith(key))
    assert faults(own(f"{kept}\n{line}\n")) == [("mine", what)]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no models; each is a table"),
        ("[a\n", "not TOML"),
        ("a = 1\n", "not models of energy"),
        ("a = " + "[" * 50_000, "not TOML"),
    ],
)
def test_what_is_no_file_of_models_is_refused(own, text, why):
    with pytest.raises(BadInputError, match=why):
        models_named([own(text)])


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(BadInputError, match=r"missing.toml: cannot be read"):
        models_named([str(tmp_path / "missing.toml")])
    (tmp_path / "latin.toml").write_bytes(b'[a]\ndescription = "\xe9"\n')
    with pytest.raises(BadInputError, match="not TOML, which is UTF-8"):
        models_named([str(tmp_path / "latin.toml")])


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    with pytest.raises(BadInputError, match=r"it is a pipe and a regular file is expected"):
        models_named([str(tmp_path / "pipe.toml")])
    with pytest.raises(BadInputError, match=r"x.toml: cannot be read"):
        models_named([str(tmp_path / "pipe.toml" / "x.toml")])


def test_a_file_is_a_megabyte_at_most(own):
    with pytest.raises(BadInputError, match="larger than 1,048,576 bytes"):
        models_named([own("#" * (2 << 20))])


def test_one_name_is_one_model(own):
    clash = OWN.replace("[mine]", "[45nm-int8]")
    with pytest.raises(BadInputError, match="model '45nm-int8' is another one elsewhere"):
        models_named(["45nm-int8", own(clash)])
