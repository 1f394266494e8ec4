from __future__ import annotations

import argparse
import copy
import dataclasses
import io
import os
import pickle
import zipfile
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from snncc.errors import BadInputError, UsageError
from snncc.frontends.checkpoint import Weights, load_weights, read_weights

RAW_KEYS = ["state_dict", "model", "model_state_dict", "net", "module"]
EMA_KEYS = ["state_dict_ema", "model_ema", "ema", "ema_state_dict"]


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))


def state(shift: float = 0.0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        key: torch.randn(value.shape, generator=generator) + shift
        if value.is_floating_point()
        else torch.tensor(7)
        for key, value in network().state_dict().items()
    }


def saved(tmp_path: Path, content: object, **options: object) -> Path:
    torch.save(content, tmp_path / "net.pth", **options)
    return tmp_path / "net.pth"


def weights(tensors: dict[str, torch.Tensor]) -> Weights:
    return Weights(tensors, "raw", "top level", ("raw",), "net.pth")


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


# --- containers -----------------------------------------------------------------------------------


@pytest.mark.parametrize("zipped", [True, False])
def test_a_bare_state_dict_is_found_at_the_top_level(tmp_path, zipped):
    file = saved(tmp_path, state(), _use_new_zipfile_serialization=zipped)
    read = read_weights(file)
    assert equal(read.tensors, state())
    assert (read.which, read.container, read.available) == ("raw", "top level", ("raw",))
    assert read.source == str(file)


@pytest.mark.parametrize("key", RAW_KEYS)
def test_raw_weights_are_found_in_every_container(tmp_path, key):
    file = saved(tmp_path, {"epoch": 3, "loss": torch.tensor(0.5), key: state()})
    read = read_weights(file)
    assert equal(read.tensors, state())
    assert read.container == f"['{key}']"


@pytest.mark.parametrize("key", EMA_KEYS)
@pytest.mark.parametrize("inner", [None, "module", "state_dict"])
def test_the_moving_average_is_found_in_every_container_and_only_on_demand(tmp_path, key, inner):
    average = state(1.0) if inner is None else {"decay": 0.99, inner: state(1.0)}
    file = saved(tmp_path, {"model": state(), key: average})
    raw, ema = read_weights(file), read_weights(file, which="ema")
    assert equal(raw.tensors, state())
    assert equal(ema.tensors, state(1.0))
    assert (raw.which, ema.which) == ("raw", "ema")
    assert raw.available == ema.available == ("raw", "ema")
    assert ema.container == (f"['{key}']" if inner is None else f"['{key}']['{inner}']")


def test_a_variant_the_file_lacks_is_refused_and_the_other_named(tmp_path):
    with pytest.raises(BadInputError, match="no ema weights; pass weights='raw'"):
        read_weights(saved(tmp_path, {"model": state()}), which="ema")
    with pytest.raises(BadInputError, match="no ema weights; pass weights='raw'"):
        read_weights(saved(tmp_path, state()), which="ema")
    with pytest.raises(BadInputError, match="no raw weights; pass weights='ema'"):
        read_weights(saved(tmp_path, {"model_ema": state(), "model": 3}))
    with pytest.raises(UsageError, match="choose raw or ema"):
        read_weights(tmp_path / "net.pth", which="both")


def test_arguments_of_a_training_script_do_no_harm(tmp_path):
    file = saved(tmp_path, {"args": argparse.Namespace(lr=0.1), "model": state()})
    assert equal(read_weights(file).tensors, state())


def test_half_precision_becomes_float32_and_integers_stay(tmp_path):
    content = {
        "half": torch.tensor([1.5], dtype=torch.float16),
        "brain": torch.tensor([1.5], dtype=torch.bfloat16),
        "double": torch.tensor([1.5], dtype=torch.float64),
        "levels": torch.tensor([3], dtype=torch.int64),
        "mask": torch.tensor([True]),
        "parameter": nn.Parameter(torch.tensor([1.5])),
    }
    tensors = read_weights(saved(tmp_path, content)).tensors
    dtypes = {key: tensor.dtype for key, tensor in tensors.items()}
    floats = dict.fromkeys(["half", "brain", "double", "parameter"], torch.float32)
    assert dtypes == floats | {"levels": torch.int64, "mask": torch.bool}
    assert all(float(tensors[key]) == 1.5 for key in floats)
    assert not any(tensor.requires_grad for tensor in tensors.values())


# --- files that are refused -----------------------------------------------------------------------


class Malicious:
    def __reduce__(self):
        return (os.mkdir, ("made_by_a_pickle",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_wants_code_is_refused_and_does_not_run(tmp_path, monkeypatch, zipped):
    monkeypatch.chdir(tmp_path)
    content = {"model": state(), "extra": Malicious()}
    file = saved(tmp_path, content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        BadInputError, match=r"wants to run code, \S*mkdir.*trust_pickle=True"
    ) as error:
        read_weights(file)
    assert error.value.exit_code == 6
    assert not Path("made_by_a_pickle").exists()
    assert equal(read_weights(file, trust_pickle=True).tensors, state())
    assert Path("made_by_a_pickle").exists()


def test_a_plain_malicious_pickle_does_not_run_either(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        (tmp_path / "net.pth").write_bytes(pickle.dumps(Malicious(), protocol=protocol))
        with pytest.raises(BadInputError, match=r"net\.pth: "):
            read_weights(tmp_path / "net.pth")
    assert not Path("made_by_a_pickle").exists()


def test_blocked_modules_are_named(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R.")
    with pytest.raises(BadInputError, match=r"wants to run code, os\.system"):
        read_weights(tmp_path / "net.pth")


def test_a_whole_pickled_module_is_read_on_trust_only(tmp_path):
    net = network()
    for content in (net, {"model": net}, {"ema": net}):
        file = saved(tmp_path, content)
        with pytest.raises(BadInputError, match=r"wants to run code, torch\.nn\.modules"):
            read_weights(file)
        which = "ema" if isinstance(content, dict) and "ema" in content else "raw"
        read = read_weights(file, which=which, trust_pickle=True)
        assert equal(read.tensors, dict(net.state_dict()))


def test_a_trusted_pickle_whose_code_is_not_there_says_what_it_wants(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"\x80\x02cabsent_module\nNet\n.")
    with pytest.raises(BadInputError, match=r"cannot be unpickled .*absent_module"):
        read_weights(tmp_path / "net.pth", trust_pickle=True)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(place=st.floats(0, 1), value=st.integers(0, 255), zipped=st.booleans())
def test_damage_raises_nothing_but_a_bad_input_error(tmp_path, place, value, zipped):
    buffer = io.BytesIO()
    torch.save({"model": {"w": torch.ones(3)}}, buffer, _use_new_zipfile_serialization=zipped)
    data = bytearray(buffer.getvalue())
    data[int(place * (len(data) - 1))] = value
    (tmp_path / "net.pth").write_bytes(data)
    with suppress(BadInputError):
        read_weights(tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, no state dict; save net.state_dict"),
        ({}, "no state dict in it; holds nothing; expected one under state_dict, model"),
        ({"epoch": 3}, r"holds epoch \(int\)"),
        ({"w": torch.ones(1), "epoch": 3}, r"holds w \(Tensor\), epoch \(int\)"),
        ({"model": {}}, "no state dict in it"),
        ({3: torch.ones(1)}, "no state dict in it"),
    ],
)
def test_a_file_without_a_state_dict_says_what_it_holds(tmp_path, content, message):
    with pytest.raises(BadInputError, match=message):
        read_weights(saved(tmp_path, content))


def test_a_dict_that_holds_itself_is_refused(tmp_path):
    content: dict[str, object] = {}
    content["model"] = content
    with pytest.raises(BadInputError, match="no state dict in it"):
        read_weights(saved(tmp_path, content))


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(BadInputError, match=r"absent: cannot be read \(No such file"):
        read_weights(tmp_path / "absent")
    with pytest.raises(BadInputError, match="cannot be read"):
        read_weights(tmp_path)


def test_all_tensors_with_nan_or_infinity_are_listed(tmp_path):
    content = state()
    content["0.bias"][0] = torch.nan
    content["3.weight"][1, 2:4] = torch.inf
    content["3.bias"] = torch.full((3,), 1e300, dtype=torch.float64)
    with pytest.raises(BadInputError, match="3 of 9 tensors cannot be used") as caught:
        read_weights(saved(tmp_path, content))
    found = [(fault.node, fault.what.split(" are ")[0]) for fault in caught.value.faults]
    assert found == [
        ("0.bias", "1 of 2 values"),
        ("3.weight", "2 of 24 values"),
        ("3.bias", "3 of 3 values"),
    ]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.ones(2, dtype=torch.complex64),
        torch.ones(2, 2).to_sparse(),
        torch.ones(2, device="meta"),
    ],
)
def test_tensors_that_are_no_plain_arrays_are_refused(tmp_path, tensor):
    with pytest.raises(BadInputError, match=r"w: .* not a plain array of numbers"):
        read_weights(saved(tmp_path, {"w": tensor}))


# --- loading --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "_orig_mod.", "backbone.", "module._orig_mod.", "model.backbone."],
)
def test_a_prefix_is_taken_off_when_more_keys_match_without_it(prefix):
    net = network()
    report = load_weights(net, weights({prefix + key: value for key, value in state().items()}))
    assert equal(dict(net.state_dict()), state())
    assert (report.stripped, report.loaded, report.parameters) == (prefix, 9, 20 + 4 + 27)
    assert report.missing == report.unexpected == ()


def test_a_prefix_that_the_network_has_itself_stays():
    net = nn.ModuleDict({"backbone": nn.Linear(2, 2), "model": nn.Linear(2, 2)})
    tensors = {key: torch.ones_like(value) for key, value in net.state_dict().items()}
    assert load_weights(net, weights(tensors)).stripped == ""
    assert equal(dict(net.state_dict()), tensors)


def test_a_prefix_is_not_taken_off_when_two_keys_would_become_one():
    tensors = {f"model.{key}": value for key, value in state().items()} | {"0.bias": torch.ones(2)}
    with pytest.raises(BadInputError, match="do not fit"):
        load_weights(network(), weights(tensors))


def test_missing_batch_counters_are_no_fault():
    tensors = {key: value for key, value in state().items() if "num_batches" not in key}
    report = load_weights(network(), weights(tensors))
    assert (report.missing, report.loaded) == ((), 8)


def test_all_faults_are_collected_with_shapes_and_near_keys():
    tensors = state()
    tensors["0.weights"] = tensors.pop("0.weight")
    tensors["3.weight"] = torch.zeros(10, 8)
    del tensors["1.bias"]
    tensors["extra"] = torch.zeros(5)
    with pytest.raises(BadInputError) as caught:
        load_weights(network(), weights(tensors))
    assert str(caught.value).splitlines() == [
        "net.pth: raw weights at top level do not fit, faults: 5; check arch, arch_args",
        "  3.weight: shape [10, 8], the network has [3, 8]",
        "  0.weight: missing; the checkpoint has '0.weights' of the same shape",
        "  1.bias: missing",
        "  extra: unexpected",
        "  0.weights: unexpected; the network has '0.weight' of the same shape",
    ]


def test_missing_and_unexpected_keys_pass_only_when_allowed():
    tensors = {f"module.{key}": value for key, value in state().items()}
    tensors["module.extra"] = torch.zeros(5)
    del tensors["module.3.bias"]
    for allowed in ({}, {"allow_missing": True}, {"allow_unexpected": True}):
        with pytest.raises(BadInputError):
            load_weights(network(), weights(tensors), **allowed)
    net = network()
    kept = net[3].bias.detach().clone()
    report = load_weights(net, weights(tensors), allow_missing=True, allow_unexpected=True)
    assert (report.missing, report.unexpected) == (("3.bias",), ("module.extra",))
    assert report.loaded == 8
    assert torch.equal(net[3].bias, kept)


def test_a_wrong_shape_is_never_allowed():
    tensors = state() | {"3.bias": torch.zeros(4)}
    with pytest.raises(BadInputError, match=r"3\.bias: shape \[4\], the network has \[3\]"):
        load_weights(network(), weights(tensors), allow_missing=True, allow_unexpected=True)


def test_values_that_a_buffer_cannot_hold_are_refused():
    net = nn.Module()
    net.register_buffer("threshold", torch.zeros(2, dtype=torch.int64))
    with pytest.raises(BadInputError, match=r"threshold: torch\.float32 values that torch\.int64"):
        load_weights(net, weights({"threshold": torch.tensor([1.0, 2.5])}))
    load_weights(net, weights({"threshold": torch.tensor([1.0, 2.0])}))
    assert net.threshold.tolist() == [1, 2]


def test_a_network_on_the_meta_device_is_refused():
    with torch.device("meta"):
        net = nn.Linear(2, 2)
    tensors = {"weight": torch.ones(2, 2), "bias": torch.ones(2)}
    with pytest.raises(BadInputError, match="construct it on the CPU"):
        load_weights(net, weights(tensors))


class Renamed(nn.Linear):
    """A layer that reads checkpoints of its version 1, in which the weight had another name."""

    _version = 2

    def _load_from_state_dict(self, state_dict, prefix, local_metadata, *rest):
        if local_metadata.get("version", 1) < 2:
            state_dict[f"{prefix}weight"] = state_dict.pop(f"{prefix}kernel")
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *rest)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_modules_translate_older_checkpoints_by_the_version_stored(tmp_path, version, prefix):
    name = "kernel" if version == 1 else "weight"
    stored = OrderedDict({f"{prefix}{name}": torch.ones(2, 2), f"{prefix}bias": torch.ones(2)})
    stored._metadata = {prefix.rstrip("."): {"version": version}}
    net = Renamed(2, 2)
    report = load_weights(net, read_weights(saved(tmp_path, stored)))
    assert torch.equal(net.weight, torch.ones(2, 2))
    assert (report.missing, report.unexpected, report.loaded) == ((), (), 2)


def test_a_lazy_module_takes_its_shape_from_the_checkpoint():
    net = nn.LazyLinear(3)
    tensors = {"weight": torch.ones(3, 8), "bias": torch.ones(3)}
    assert load_weights(net, weights(tensors)).parameters == 27


def test_the_weights_read_are_not_changed_by_loading(tmp_path):
    read = read_weights(saved(tmp_path, state()))
    before = copy.deepcopy(read.tensors)
    net = network()
    load_weights(net, read)
    with torch.no_grad():
        net[0].weight.zero_()
    assert equal(read.tensors, before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        read.which = "ema"


# --- states, which are no weights -----------------------------------------------------------------


class StatefulLayer(nn.Module):
    """As sinabs has it: states begin as empty buffers, and running fills them, batch and all."""

    def __init__(self, *names):
        super().__init__()
        for name in names:
            self.register_buffer(name, torch.zeros(0))


StatefulLayer.__module__, StatefulLayer.__qualname__ = (
    "sinabs.layers.stateful_layer",
    "StatefulLayer",
)


class Adapting(StatefulLayer):
    """A neuron of such a library: a state of a name of its own, and a threshold that is learnt."""

    def __init__(self):
        super().__init__("b", "v_mem")
        self.spike_threshold = nn.Parameter(torch.tensor(1.0))


class Own(nn.Module):
    """A neuron of somebody's own; in newer versions its spikes are not saved."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mem", None)
        self.register_buffer("v_mem", torch.zeros(0))
        self.register_buffer("last", torch.zeros(1), persistent=False)


def spiking(threshold=0.5):
    """A network of both, and its tensors as they are after a batch of 2."""
    net = nn.Sequential(nn.Linear(3, 4), Adapting(), Own())
    tensors = {
        "0.weight": torch.randn(4, 3), "0.bias": torch.randn(4),
        "1.spike_threshold": torch.tensor(threshold), "1.b": torch.ones(2, 4),
        "1.v_mem": torch.ones(2, 4), "2.mem": torch.ones(2, 4), "2.v_mem": torch.ones(2, 4),
        "2.last": torch.ones(2, 4),
    }  # fmt: skip
    return net, tensors


@pytest.mark.parametrize("prefix", ["", "module."])
def test_states_of_neurons_are_left_out_by_name(prefix):
    net, tensors = spiking()
    report = load_weights(net, weights({prefix + key: v for key, v in tensors.items()}))
    names = ("1.b", "1.v_mem", "2.mem", "2.v_mem", "2.last")
    assert report.states == tuple(prefix + name for name in names)
    assert (report.missing, report.unexpected, report.loaded) == ((), (), 3)
    assert torch.equal(net[0].weight, tensors["0.weight"])
    assert net[1].spike_threshold.item() == 0.5
    assert net[1].v_mem.shape == net[2].v_mem.shape == (0,)
    assert net[2].mem is None


class Weighted(nn.Module):
    """What is no state, whatever it is called."""

    def __init__(self):
        super().__init__()
        self.v_mem = nn.Parameter(torch.zeros(0))
        self.register_buffer("border", torch.zeros(0))
        self.register_buffer("mem", torch.zeros(3))
        self.register_buffer("running_mean", None)


def test_states_of_a_network_that_was_run_as_it_was_made_are_left_out():
    """sinabs' Network does that: its states have a batch of one, those of the file a larger one."""
    net = nn.Sequential(nn.Linear(3, 3), Adapting())
    trained = {**net.state_dict(), "1.b": torch.ones(8, 3), "1.v_mem": torch.ones(8, 3)}
    net[1].b, net[1].v_mem = torch.zeros(1, 3), torch.zeros(1, 3)
    report = load_weights(net, weights(trained))
    assert sorted(report.states) == ["1.b", "1.v_mem"]
    assert net[1].v_mem.shape == (1, 3)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("v_mem", r"v_mem: shape \[2, 4\], the network has \[0\]"),
        ("border", r"border: shape \[2, 4\], the network has \[0\]"),
        ("mem", r"mem: shape \[2, 4\], the network has \[3\]"),
        ("running_mean", "running_mean: unexpected"),
        ("absent.v_mem", "absent.v_mem: unexpected"),
        ("spk", "spk: unexpected"),
    ],
)
def test_no_weight_is_taken_for_a_state(key, why):
    net = Weighted()
    tensors = {name: value.clone() for name, value in net.state_dict().items()}
    with pytest.raises(BadInputError, match=why):
        load_weights(net, weights(tensors | {key: torch.ones(2, 4)}))


# --- what a small file may unpack to --------------------------------------------------------------


def packed_again(path):
    """The same archive, its members compressed."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_compressed_members_are_read_within_a_bound(tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(2**18)}, tmp_path / "net.pt")
    packed_again(tmp_path / "net.pt")
    assert read_weights(tmp_path / "net.pt").tensors["a"].numel() == 2**18
    monkeypatch.setattr("snncc.frontends.checkpoint_file.UNPACKED_BYTES", 2**17)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(BadInputError, match=r"its members take 1 MiB .* are the most") as e:
        read_weights(tmp_path / "net.pt")
    assert [fault.node for fault in e.value.faults] == ["net/data/0"]


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize("kind", ["repeated", "shared", "half"])
def test_tensors_that_repeat_numbers_are_read_within_a_bound(kind, form, tmp_path):
    one = torch.zeros(2**14, dtype=torch.half if kind == "half" else torch.float32)
    many = (
        {f"w{i}": one for i in range(2**13)}
        if kind != "repeated"
        else {"w0": one[:1].expand(2**40)}
    )
    torch.save(many, tmp_path / "net.pt", _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(BadInputError, match=r"net\.pt: its tensors take .* MiB and the file") as e:
        read_weights(tmp_path / "net.pt")
    assert "w0" in {fault.node for fault in e.value.faults} or kind != "repeated"
    few = {"w0": one[:1].expand(100), "w1": one, "w2": one}
    torch.save(few, tmp_path / "net.pt")
    assert read_weights(tmp_path / "net.pt").tensors["w0"].shape == (100,)


# --- keys in containers ---------------------------------------------------------------------------


class Held(nn.Module):
    """A container that calls what it holds ``module``, as SpikingJelly's did once."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.module = nn.Sequential(*layers)


class Wired(nn.Module):
    """Layers in containers, and one on its own."""

    def __init__(self, container: type[nn.Module]) -> None:
        super().__init__()
        self.conv1 = container(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.layer1 = nn.Sequential(container(nn.Conv2d(2, 2, 3)))
        self.fc = nn.Linear(8, 3)


@pytest.mark.parametrize(("own", "stored"), [(nn.Sequential, Held), (Held, nn.Sequential)])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_keys_that_differ_by_their_containers_are_renamed(own, stored, prefix):
    torch.manual_seed(0)
    tensors = {f"{prefix}{key}": value for key, value in Wired(stored).state_dict().items()}
    report = load_weights(net := Wired(own), weights(tensors))
    assert (report.missing, report.unexpected) == ((), ())
    assert len(report.renamed) == 9
    found = net.state_dict()
    assert {*report.renamed.values()} == {key for key in found if not key.startswith("fc.")}
    for old, new in report.renamed.items():
        assert torch.equal(tensors[old], found[new])
    assert report.loaded == len(tensors)


def test_a_key_is_renamed_only_where_one_can_be_meant():
    """Two keys that differ by ``module`` alone: neither is renamed, both are faults."""
    tensors = Wired(nn.Sequential).state_dict()
    both = tensors | {"conv1.module.0.weight": tensors["conv1.0.weight"] + 1}
    report = load_weights(Wired(nn.Sequential), weights(both), allow_unexpected=True)
    assert report.renamed == {}
    assert report.unexpected == ("conv1.module.0.weight",)
    lone = {key: value for key, value in both.items() if key != "conv1.0.weight"}
    twice = lone | {"module.conv1.0.module.weight": tensors["conv1.0.weight"]}
    with pytest.raises(BadInputError, match="faults: 3"):
        load_weights(Wired(nn.Sequential), weights(twice))


def test_what_a_file_says_about_its_training_is_read_as_far_as_it_is_plain(tmp_path):
    arguments = argparse.Namespace(T=4, lr=1e-3, mean=[0.5, 0.4], name="net", w=torch.zeros(2))
    content = {"state_dict": state(), "arch": "sdt", "args": arguments}
    told = read_weights(saved(tmp_path, content)).told
    assert told == {
        "arch": "sdt", "args": {"T": 4, "lr": 1e-3, "mean": [0.5, 0.4], "name": "net"}
    }  # fmt: skip
    deep: list[object] = []
    for _ in range(200):
        deep = [deep]
    odd = {"T": 10**400, "mean": deep, "name": "a\x1b[2J", "long": "x" * 65, "std": [[1.0]]}
    content = {"state_dict": state(), "arch": "a\nb", "args": odd | {"lr": 1.0}}
    assert read_weights(saved(tmp_path, content)).told == {"arch": "", "args": {"lr": 1.0}}
    told = read_weights(saved(tmp_path, {"model": state(), "arch": 3, "args": [1]})).told
    assert told == {"arch": "", "args": {}}
    assert read_weights(saved(tmp_path, state())).told == {"arch": "", "args": {}}
