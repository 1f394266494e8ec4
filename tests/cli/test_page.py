"""``snncc inspect --html``: what stands in the page, and what never does."""

import base64
import copy
import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from page_documents import HOSTILE, document_of, map_of, profile_of, small, unpacked

import snncc as package
from snncc.cli import page as pages
from snncc.cli import tables
from snncc.cli.page import TEMPLATE, activity, page, script_json
from snncc.cli.page.profiles import read_profile

ROOT = Path(__file__).parents[2]
WEB = ROOT / "web"
BUILT = Path(pages.__file__).with_name(TEMPLATE)


# -- the built file --------------------------------------------------------------------------


def sources():
    """What the built file depends on, as web/build.mjs lists it."""
    own = ("build.mjs", "index.html", "package-lock.json", "package.json", "tsconfig.json")
    return sorted([*own, *(f"src/{path.name}" for path in (WEB / "src").iterdir())])


def test_the_built_page_is_that_of_its_sources():
    digest = hashlib.sha256()
    for name in sources():
        digest.update(f"{name}\0".encode() + (WEB / name).read_bytes() + b"\0")
    (told,) = re.findall(r'name="snncc-sources" content="(\w+)"', BUILT.read_text())
    assert told == digest.hexdigest(), "web/ has changed: npm ci && npm run build, there"


def test_the_built_page_runs_what_it_holds_and_asks_no_network():
    text = BUILT.read_text()
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    held = {
        "script-src": re.findall(r'<script id="code">(.*?)</script>', text, re.DOTALL),
        "style-src": re.findall(r"<style>(.*?)</style>", text, re.DOTALL),
    }
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for kind, (only,) in held.items():
        digest = base64.b64encode(hashlib.sha256(only.encode()).digest()).decode()
        assert rules.pop(kind) == f"'sha256-{digest}'"
    assert rules == {
        "default-src": "'none'",
        "worker-src": "blob:",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert not re.search(r"\b(?:src|href)=[\"']?(?:https?:)?//", text)


def test_the_built_page_keeps_the_licences_of_what_it_holds():
    head = BUILT.read_text().partition("<html")[0]
    for name in ("@dagrejs/dagre", "@dagrejs/graphlib", "Permission is hereby granted"):
        assert name in head


def test_the_lockfile_names_no_addresses():
    assert '"resolved"' not in (WEB / "package-lock.json").read_text()


# -- the document ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(cnn):
    return package.load(cnn)


@pytest.fixture(scope="module")
def found(model):
    return document_of(page(model))


def test_every_stage_is_there_and_its_edges_lead_to_nodes_before(found, model):
    assert [stage["name"] for stage in found["stages"]] == [
        "imported", "integer", "quantised", "spiking"
    ]  # fmt: skip
    for stage in found["stages"]:
        graph = model.graphs[stage["name"]].graph
        nodes = stage["nodes"]
        assert [n["name"] for n in nodes if n["op"] not in ("input", "output")] == [
            n.output[0] for n in graph.node
        ]
        made = {node["name"] for node in nodes[:-1]}
        for node, proto in zip(nodes[1:-1], graph.node, strict=True):
            read = [nodes[i]["name"] for i in node.get("inputs", [])]
            assert read == [name for name in proto.input if name in made]


def test_every_population_and_potential_is_found_in_every_stage(found, model):
    known = {n.name for n in (*model.program.neurons, *model.program.accumulators)}
    for stage in found["stages"]:
        shown = [node["fact"] for node in stage["nodes"] if "fact" in node]
        assert known <= set(shown)
        for node in stage["nodes"]:
            is_neuron = node.get("fact") in {n.name for n in model.program.neurons}
            assert is_neuron == (node.get("kind") == "neuron")


def test_modules_and_source_lines_are_those_of_the_network(found):
    nodes = {node["name"]: node for node in found["stages"][0]["nodes"]}
    assert nodes["fire3"]["module"] == "fire3"
    assert nodes["fire3"]["source"].startswith("examples/fashion_mnist/models.py:")


def test_facts_are_those_of_the_views(found, model):
    facts = {fact["name"]: fact for fact in found["program"]}
    assert list(facts) == [node.name for node in model.program.nodes]
    for row in tables.rows(model, "bounds"):
        fact = facts[row["accumulator"]]
        assert (fact["low"], fact["high"], fact["left"]) == (row["low"], row["high"], row["left"])
    for row in tables.rows(model, "neurons"):
        assert facts[row["population"]]["changed"] == row["changed"]
    assert found["report"]["verify"]["mismatched"] == 0


def test_histograms_hold_every_weight_and_levels_are_those_of_the_neurons(found, model):
    facts = {fact["name"]: fact for fact in found["program"]}
    for node in model.program.accumulators:
        for told, projection in zip(facts[node.name]["projections"], node.projections, strict=True):
            assert sum(told["histogram"]) == projection.total().size
            assert told["histogram"][0] > 0 < told["histogram"][-1]
    for neuron in model.program.neurons:
        levels = facts[neuron.name]["levels"]
        assert levels["low"] == neuron.levels.min(axis=0).tolist()
        assert levels["high"] == neuron.levels.max(axis=0).tolist()


def test_of_many_levels_evenly_spaced_ones_are_told():
    from snncc.cli.page.facts import _levels

    told = _levels(np.arange(255)[np.newaxis] * 3)
    assert (told["spike"][0], told["spike"][-1], len(told["spike"])) == (1, 255, 16)
    assert told["median"] == [3 * (spike - 1) for spike in told["spike"]]


def test_activity_and_maps_are_those_of_the_samples_in_the_file(found, model):
    for row in found["reference"]["populations"]:
        counts = model.reference.counts[row["name"]]
        trains = np.stack([counts > tick for tick in range(row["D"])])
        assert row["nsfr"] == [[pytest.approx(t.mean()) for t in trains]]
        assert row["histogram"] == np.bincount(counts.ravel(), minlength=row["D"] + 1).tolist()
        assert row["mean_count"] == pytest.approx(counts.mean())
        assert row["silent"] == int((counts.sum(axis=(0, 1)) == 0).sum())
    assert [sample["index"] for sample in found["maps"]["samples"]] == list(
        range(len(model.reference.x))
    )
    for sample in found["maps"]["samples"]:
        for name, held in sample["counts"].items():
            assert (unpacked(held) == model.reference.counts[name][:, sample["index"]]).all()
        assert (unpacked(sample["input"])[0] == model.reference.x[sample["index"]]).all()


def test_samples_beyond_the_room_for_maps_are_left_out_whole(monkeypatch):
    network = small()
    whole = document_of(page(network))["maps"]
    one = sum(len(held["data"]) for held in whole["samples"][0]["counts"].values())
    monkeypatch.setattr(activity, "MOST_MAPS", one)
    some = document_of(page(network))["maps"]
    assert (len(some["samples"]), some["available"]) == (1, 5)
    assert some["samples"][0] == whole["samples"][0]


def test_integers_that_javascript_would_round_are_text():
    told = json.loads(script_json({"a": 2**53 + 1, "b": [-(2**62)], "c": 2**53, "d": True}))
    assert told == {"a": "9007199254740993", "b": [str(-(2**62))], "c": 2**53, "d": True}


# -- names that would be markup --------------------------------------------------------------


@pytest.mark.parametrize("name", HOSTILE)
def test_no_name_is_markup(name):
    network = small((name, "x" * 5000))
    made = page(network)
    data = made.partition(b'id="document">')[2].partition(b"</script>")[0]
    assert not re.search(rb"[<>&\x80-\xff]", data)
    found = document_of(made)
    assert name in {node.get("module") for node in found["stages"][-1]["nodes"]}
    assert name in {fact["module"] for fact in found["program"]}
    empty = BUILT.read_bytes().count(b"<script")
    assert made.count(b"<script") == empty


def test_a_report_of_another_network_is_a_bad_file(snncc, tmp_path):
    path = small(silent=()).save(tmp_path / "a.snn")
    assert snncc("inspect", path, "--html", tmp_path / "a.html").code == 0
    odd = small()
    odd.reported = package.load(path).report.__class__.from_json(
        {**odd.report.to_json(), "layers": []}
    )
    done = snncc("inspect", odd.save(tmp_path / "b.snn"), "--html", tmp_path / "b.html")
    assert (done.code, (tmp_path / "b.html").exists()) == (6, False)
    assert "report.json says nothing of population 'fire1'; compile again" in done.stderr


# -- the command -----------------------------------------------------------------------------


def test_the_page_is_written_whole_and_never_over_another_file(snncc, cnn, tmp_path):
    out = tmp_path / "page.html"
    done = snncc("inspect", cnn, "--html", out)
    assert (done.code, done.stderr) == (0, "")
    assert done.stdout.startswith("wrote      TMP/page.html")
    first = out.read_bytes()
    again = snncc("inspect", cnn, "--html", out)
    assert (again.code, "exists already" in again.stderr) == (6, True)
    assert snncc("inspect", cnn, "--html", out, "-f").code == 0
    assert out.read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--profile", "p.json"), "--profile belongs to --html"),
        (("graph", "--html", "p.html"), "only --profile and -f belong to it"),
        (("--html", "p.html", "-o", "x"), "only --profile and -f belong to it"),
        (("--html", "p.html", "--format", "json"), "only --profile and -f belong to it"),
        (("--html", "p.html", "--stage", "integer"), "only --profile and -f belong to it"),
        (("--html", "p.html", "--limit", "3"), "only --profile and -f belong to it"),
    ],
)
def test_options_that_do_not_go_with_it(snncc, cnn, options, told):
    done = snncc("inspect", cnn, *options)
    assert (done.code, told in done.stderr) == (2, True)


# -- profiles --------------------------------------------------------------------------------


@pytest.fixture
def network(tmp_path):
    return package.load(small().save(tmp_path / "net.snn"))


def written(tmp_path, profile):
    path = tmp_path / "p.json"
    path.write_text(json.dumps(profile))
    return path


def test_a_profile_is_shown_with_its_maps(snncc, network, tmp_path):
    profile = profile_of(network)
    path = written(tmp_path, {**profile, "more": "left out"})
    out = tmp_path / "page.html"
    assert snncc("inspect", tmp_path / "net.snn", "--html", out, "--profile", path).code == 0
    found = document_of(out.read_bytes())
    assert found["profile"]["energy"] == profile["energy"]
    assert found["profile"]["populations"] == profile["populations"]
    assert "more" not in found["profile"]
    assert found["maps"]["origin"] == "profile"
    for sample in found["maps"]["samples"]:
        for name, held in sample["counts"].items():
            assert (unpacked(held) == network.reference.counts[name][:, sample["index"]]).all()


def test_without_maps_of_its_own_those_of_the_file_are_shown(network, tmp_path):
    known = read_profile(written(tmp_path, profile_of(network, samples=0)), network)
    assert document_of(page(network, known))["maps"]["origin"] == "reference"


def test_a_profile_of_another_artefact_is_refused_by_its_hash(snncc, cnn, network, tmp_path):
    path = written(tmp_path, profile_of(network))
    done = snncc("inspect", cnn, "--html", tmp_path / "page.html", "--profile", path)
    assert (done.code, (tmp_path / "page.html").exists()) == (6, False)
    assert "p.json: a profile of another artefact: 'small', sha256" in done.stderr
    assert done.stderr.rstrip().endswith("run snncc profile on this file")


def changed(profile, path, value):
    """The profile with something else at a path; ``KeyError``: without it."""
    copied = copy.deepcopy(profile)
    *ways, last = path
    at = copied
    for way in ways:
        at = at[way]
    if value is KeyError:
        del at[last]
    else:
        at[last] = value
    return copied


COUNTS = ("maps", "samples", 1, "counts")


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        (("format",), "other", "not a profile"),
        (("version",), 2, "profile version 2; this snncc reads 1"),
        (("populations", 0, "name"), "other", "populations are not those of 'small'"),
        (("populations", 0, "nsfr"), [["<b>"]], "populations.0.nsfr.0.0: '<b>' where"),
        (("populations", 1, "sops"), KeyError, "populations.1: no 'sops'; profile again"),
        (("samples",), True, "samples: True where int is expected"),
        (("events",), None, "events: None where an object is expected"),
        (("energy", "made-up", "formula"), "x", "formula: 'x' where an object is expected"),
        (("energy", "made-up", "sources"), "x", "sources: 'x' where an array is expected"),
        ((*COUNTS, "fire1"), KeyError, "sample 1: populations are not those of 'small'"),
        ((*COUNTS, "fire1", "data"), "!", "sample 1: fire1: not base64"),
        ((*COUNTS, "fire1", "data"), "AAAA", "fire1: 3 bytes for a map of shape [1, 3, 6, 6]"),
        ((*COUNTS, "fire1"), map_of(np.zeros((1, 3), np.uint8)), "shape [1, 3] where"),
        (("maps", "samples", 0, "input", "shape"), [-1, -36], "36 bytes for a map of shape"),
    ],
)
def test_a_damaged_profile_is_named(snncc, network, tmp_path, path, value, told):
    odd = written(tmp_path, changed(profile_of(network), path, value))
    done = snncc(
        "inspect", tmp_path / "net.snn", "--html", tmp_path / "page.html", "--profile", odd
    )
    assert (done.code, told in done.stderr) == (6, True), done.stderr
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": NaN}', "[" * 100_000])
def test_what_is_no_json_is_no_profile(snncc, network, tmp_path, text):
    (tmp_path / "p.json").write_text(text)
    args = ("--html", tmp_path / "page.html", "--profile", tmp_path / "p.json")
    done = snncc("inspect", tmp_path / "net.snn", *args)
    assert (done.code, "p.json: not " in done.stderr) == (6, True), done.stderr


def test_a_page_of_wide_integers_keeps_their_digits(network):
    told = [fact["high"] for fact in document_of(page(network))["program"] if "high" in fact]
    assert all(isinstance(high, (int, str)) for high in told)
