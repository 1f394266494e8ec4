import hashlib
import io
import json
import os
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import small_model
from hypothesis import given, settings
from networks import cases
from onnx import numpy_helper

import snncc
from snncc.backends.clocked import ClockedEngine
from snncc.errors import BadInputError, SnnccError
from snncc.runtime.artifact import CompiledModel, load, manifest_of
from snncc.runtime.container import ALIGNMENT, Blob, array_at, read_members, write_members
from snncc.runtime.contract import InputContract, by_timestep
from snncc.runtime.graph_store import WEIGHTS_KEY
from snncc.runtime.reference import Reference
from snncc.runtime.session import Session

ROOT = Path(snncc.__file__).parents[1]


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def model():
    return small_model.compiled()


@pytest.fixture
def saved(model, tmp_path):
    return model.save(tmp_path / "small.snn")


@pytest.fixture
def members(saved):
    with open(saved, "rb") as file:
        return read_members(file, str(saved))


def written(path, members):
    with open(path, "wb") as file:
        write_members(file, members)
    return path


def forged(path, members):
    """A file whose hashes are right: a consistent hand-made one."""
    manifest = json.loads(members["manifest.json"])
    parts = {k: v for k, v in members.items() if k != "manifest.json"}
    manifest["members"] = {k: hashlib.sha256(v).hexdigest() for k, v in parts.items()}
    manifest.pop("sha256")
    text = json.dumps(manifest, sort_keys=True, indent=1).encode()
    manifest["sha256"] = hashlib.sha256(text).hexdigest()
    return written(path, {**parts, "manifest.json": json.dumps(manifest).encode()})


def repacked(path, tmp_path):
    return load(path).save(tmp_path / "again.snn", overwrite=True).read_bytes()


def refusal(path):
    try:
        load(path)
    except BadInputError as error:
        return str(error)
    return None


# --- what is written ------------------------------------------------------------------------------


def test_the_same_model_gives_the_same_bytes_in_every_process(saved, tmp_path):
    assert small_model.compiled().save(tmp_path / "b.snn").read_bytes() == saved.read_bytes()
    code = "import small_model, sys; small_model.compiled().save(sys.argv[1])"
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"}
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.snn")], env=env, check=True)
    assert (tmp_path / "c.snn").read_bytes() == saved.read_bytes()


@pytest.mark.parametrize("keep_stages", [False, True])
def test_saving_a_loaded_model_gives_the_same_bytes(tmp_path, keep_stages):
    path = small_model.compiled(keep_stages=keep_stages).save(tmp_path / "a.snn")
    assert load(path).keep_stages == keep_stages
    assert repacked(path, tmp_path) == path.read_bytes()


def test_a_loaded_model_says_what_the_saved_one_said(model, saved):
    again = load(saved)
    (json_a, arrays_a), (json_b, arrays_b) = model.program.to_json(), again.program.to_json()
    assert json.loads(json.dumps(json_a)) == json.loads(json.dumps(json_b))
    assert all((arrays_a[k] == arrays_b[k]).all() for k in arrays_a | arrays_b)
    assert again.manifest == model.manifest
    assert again.report == {"changed": 0.25, "layers": 3, "unmeasured": None}
    assert (again.name, again.input, again.outputs) == (model.name, model.input, model.outputs)
    for stage in ("quantised", "spiking"):
        onnx.checker.check_model(again.graphs[stage])
        for a, b in zip(
            model.graphs[stage].graph.initializer,
            again.graphs[stage].graph.initializer,
            strict=True,
        ):
            assert (numpy_helper.to_array(a) == numpy_helper.to_array(b)).all()


@given(cases())
@settings(max_examples=30, deadline=None)
def test_any_network_runs_the_same_from_its_file(tmp_path_factory, case):
    program, x = case
    if program.source.payload > 255:
        return
    activity = ClockedEngine(program).run(x)
    is_sequence = x.ndim > len(program.source.shape) + 1
    samples = x.swapaxes(0, 1) if is_sequence else x
    contract = InputContract(
        "x", program.source.shape, timesteps=program.timesteps if is_sequence else 0
    )
    model = CompiledModel(
        program, manifest_of(program, contract), reference=Reference.of(samples, activity)
    )
    again = load(model.save(tmp_path_factory.mktemp("net") / "net.snn"))
    assert not any(m.mismatched for m in again.reference.compare(activity))
    assert again.input == contract
    run_again = ClockedEngine(again.program).run(by_timestep(again.reference.x, contract.shape))
    assert not any(m.mismatched for m in again.reference.compare(run_again))


def test_members_are_stored_and_aligned_and_any_zip_tool_reads_them(saved):
    data = saved.read_bytes()
    with zipfile.ZipFile(saved) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == sorted(archive.namelist())
        for info in archive.infolist():
            name, extra = struct.unpack_from("<HH", data, info.header_offset + 26)
            assert (info.header_offset + 30 + name + extra) % ALIGNMENT == 0
            assert (info.compress_type, info.date_time[0]) == (zipfile.ZIP_STORED, 1980)
        reference = np.load(io.BytesIO(archive.read("reference.npz")), allow_pickle=False)
    assert (reference["x"] == small_model.samples()).all()


def test_program_and_graphs_refer_to_the_same_weights(members):
    arrays = json.loads(members["program.json"])["arrays"]
    graph = onnx.load_from_string(members["graphs/quantised.onnx"]).graph
    external = {
        t.name: {e.key: e.value for e in t.external_data}
        for t in graph.initializer
        if t.external_data
    }
    offsets = {k: int(v["offset"]) for k, v in external.items()}
    assert {v["location"] for v in external.values()} == {"weights.bin"}
    assert offsets["conv2_w"] == arrays["conv2:v.projections.0.weights.0"]["offset"]
    assert offsets["fire2_levels"] == arrays["fire2.levels"]["offset"]
    sizes = {entry["offset"]: entry["nbytes"] for entry in arrays.values()}
    assert len(members["weights.bin"]) == sum(
        -(-n // ALIGNMENT) * ALIGNMENT for n in sizes.values()
    )


def test_earlier_stages_keep_statistics_of_their_weights(members):
    graph = onnx.load_from_string(members["stages/integer.onnx"]).graph
    info = next(value for value in graph.input if value.name == "conv2_w")
    known = json.loads({p.key: p.value for p in info.metadata_props}[WEIGHTS_KEY])
    w = small_model.weights()["conv2_w"]
    assert [known[k] for k in ("min", "max", "mean")] == [w.min(), w.max(), w.mean()]
    assert known["std"] == pytest.approx(w.std())
    assert known["sha256"] == hashlib.sha256(w.tobytes()).hexdigest()
    assert "conv2_w" not in {t.name for t in graph.initializer}


def test_large_references_are_digests_that_still_find_a_difference(model, tmp_path):
    x = small_model.samples()
    activity = ClockedEngine(model.program).run(x)
    digested = Reference.of(x, activity, limit=100)
    small = CompiledModel(model.program, model.manifest, reference=digested)
    again = load(small.save(tmp_path / "d.snn")).reference
    assert not again.counts
    assert not any(m.mismatched for m in again.compare(activity))
    activity.counts["fire2"][0, 3, 2, 1, 1] ^= 1
    assert {m.name: m.mismatched for m in again.compare(activity)} == {
        "fire1": 0,
        "fire2": 1,
        "logits": 0,
    }


# --- writing that fails ---------------------------------------------------------------------------


def test_an_existing_file_is_replaced_only_on_demand(model, tmp_path):
    path = tmp_path / "a.snn"
    path.write_bytes(b"mine")
    with pytest.raises(BadInputError, match=r"exists already.*-f") as caught:
        model.save(path)
    assert caught.value.exit_code == 6
    assert path.read_bytes() == b"mine"
    model.save(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a.snn"]
    load(path)


def test_nothing_is_left_behind_when_writing_fails(model, tmp_path, monkeypatch):
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(BadInputError, match="disk full"):
        model.save(tmp_path / "a.snn")
    assert not [p for p in tmp_path.iterdir() if p.is_file()]
    with pytest.raises(BadInputError, match="cannot be written"):
        model.save(tmp_path / "absent" / "a.snn")


def test_an_invalid_model_is_not_written(model, tmp_path):
    wrong = {**model.manifest, "timesteps": 2}
    with pytest.raises(BadInputError, match="timesteps"):
        CompiledModel(model.program, wrong).save(tmp_path / "a.snn")
    late = replace(model.program, nodes=model.program.nodes[::-1])
    with pytest.raises(BadInputError):
        CompiledModel(late, model.manifest).save(tmp_path / "a.snn")
    assert not (tmp_path / "a.snn").exists()


def test_weights_in_a_file_elsewhere_are_not_taken_over(model, tmp_path):
    graph = onnx.ModelProto()
    graph.CopyFrom(model.graphs["quantised"])
    graph.graph.initializer[0].external_data.add(key="location", value="other.bin")
    with pytest.raises(SnnccError, match="file of its own"):
        CompiledModel(model.program, model.manifest, {"quantised": graph}).save(tmp_path / "a.snn")


# --- damaged files --------------------------------------------------------------------------------


def test_a_truncated_file_is_refused_wherever_it_ends(saved, tmp_path):
    data = saved.read_bytes()
    cut = tmp_path / "cut.snn"
    for size in {*range(0, len(data), 211), *range(len(data) - 30, len(data))}:
        cut.write_bytes(data[:size])
        with pytest.raises(BadInputError, match=r"cut\.snn: cut off or damaged"):
            load(cut)


def test_a_flipped_byte_is_refused_or_does_not_matter(saved, tmp_path):
    data = saved.read_bytes()
    flipped = tmp_path / "flipped.snn"
    directory = data.rindex(b"PK\x05\x06")
    places = {*range(0, len(data), 97), *range(0, 120, 3), *range(directory - 300, len(data), 5)}
    refused = 0
    for place in sorted(places):
        changed = bytearray(data)
        changed[place] ^= 1 << place % 8
        flipped.write_bytes(changed)
        error = refusal(flipped)
        if error is None:
            assert repacked(flipped, tmp_path) == data
        else:
            assert error.startswith(str(flipped))
            refused += 1
    assert refused > len(places) // 2


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"hello", "not a zip file"),
        (b"PK\x03\x04 and no more", "directory, at its end, is not there"),
        (b"\x80\x04\x95", "not a zip file"),
    ],
)
def test_what_is_no_artefact_is_refused(tmp_path, data, message):
    path = tmp_path / "a.snn"
    path.write_bytes(data)
    with pytest.raises(BadInputError, match=message):
        load(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(BadInputError, match="cannot be read"):
            load(path)


@pytest.mark.parametrize("name", ["program.json", "report.json", "weights.bin", "reference.npz"])
def test_a_member_that_was_edited_or_left_out_is_named(members, tmp_path, name):
    with pytest.raises(BadInputError, match=f"{name} changed since compiling"):
        load(written(tmp_path / "a.snn", {**members, name: members[name] + b" "}))
    with pytest.raises(BadInputError, match=f"{name} missing"):
        load(written(tmp_path / "a.snn", {k: v for k, v in members.items() if k != name}))


def test_an_edited_manifest_and_strange_members_are_refused(members, tmp_path):
    path = tmp_path / "a.snn"
    edited = members["manifest.json"].replace(b'"ticks": 4', b'"ticks": 5')
    with pytest.raises(BadInputError, match=r"manifest\.json has been changed"):
        load(written(path, {**members, "manifest.json": edited}))
    newer = members["manifest.json"].replace(b'"schema_version": 1', b'"schema_version": 2')
    with pytest.raises(BadInputError, match="format version 2; this snncc reads 1"):
        load(written(path, {**members, "manifest.json": newer}))
    with pytest.raises(BadInputError, match=r"evil\.py not in the manifest"):
        load(written(path, {**members, "evil.py": b"print()"}))
    with pytest.raises(BadInputError, match=r"no manifest\.json"):
        load(written(path, {"weights.bin": b""}))


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "graphs/../../evil", "a\\..\\b", "C:/x y", "graphs/", "./a"]
)
def test_names_that_leave_the_file_are_refused(members, tmp_path, name):
    with pytest.raises(BadInputError, match="refused member name"):
        load(written(tmp_path / "a.snn", {**members, name: b"x"}))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_bombs_and_duplicates_are_refused(members, tmp_path):
    path = tmp_path / "a.snn"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("weights.bin", bytes(1 << 20))
    with pytest.raises(BadInputError, match="is compressed"):
        load(path)
    with zipfile.ZipFile(path, "w") as archive:
        for _ in range(2):
            archive.writestr("manifest.json", members["manifest.json"])
    with pytest.raises(BadInputError, match="2 members, 1 names"):
        load(path)
    data = bytearray(written(path, members).read_bytes())
    directory = data.rindex(b"PK\x01\x02")
    data[directory + 20 : directory + 28] = struct.pack("<II", 2**31, 2**31)
    path.write_bytes(data)
    with pytest.raises(BadInputError, match="members claim"):
        load(path)


# --- consistent files made by hand ----------------------------------------------------------------


def edit_program(members, change):
    program = json.loads(members["program.json"])
    change(program)
    return {**members, "program.json": json.dumps(program).encode()}


def set_array(key, **fields):
    return lambda program: program["arrays"][key].update(fields)


def set_node(index, **fields):
    return lambda program: program["nodes"][index].update(fields)


WEIGHT = "fc:v.projections.0.weights.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_array(WEIGHT, offset=2**40), "not in the weights"),
        (set_array(WEIGHT, offset=-64), "malformed offset"),
        (set_array(WEIGHT, offset=1), "not in the weights"),
        (set_array(WEIGHT, offset=True), "malformed offset"),
        (set_array(WEIGHT, nbytes=8), "do not hold"),
        (set_array(WEIGHT, shape=[2**40, 2**40]), "do not hold"),
        (set_array(WEIGHT, shape=[-5, -144]), "malformed"),
        (set_array(WEIGHT, shape="abc"), "malformed"),
        (set_array(WEIGHT, dtype="object"), "dtype 'object'"),
        (set_array(WEIGHT, dtype=["int8"]), "dtype"),
        (set_array("fc:v.bias", dtype="int8", nbytes=5), "bias is not int64"),
        (lambda program: program["arrays"].pop(WEIGHT), "malformed entry"),
        (lambda program: program.pop("arrays"), "no arrays"),
        (lambda program: program.pop("nodes"), "malformed entry"),
        (lambda program: program.update(timesteps=0), "timesteps 0"),
        (lambda program: program.update(timesteps=10**9), "timesteps 1000000000"),
        (lambda program: program.update(timesteps=True), "True is not expected"),
        (lambda program: program.update(ticks=0), "ticks"),
        (set_node(0, payload=2.5), "2.5 is not expected"),
        (set_node(0, payload=None), "None is not expected"),
        (set_node(0, shape=[1, 6, 7]), "arrives as"),
        (set_node(0, type="pickle"), "malformed entry"),
        (set_node(0, name=["x"]), "not valid"),
        (set_node(1, low=0), "declared bounds"),
        (set_node(2, extra=1), "malformed entry"),
        (set_node(2, source="fc:v"), "does not come before"),
        (set_node(7, scale=float("nan")), "NaN is not JSON"),
        (set_node(7, scale=-1.0), "not positive"),
    ],
)
def test_a_consistent_but_wrong_program_is_refused(members, tmp_path, change, message):
    with pytest.raises(BadInputError, match=message):
        load(forged(tmp_path / "a.snn", edit_program(members, change)))


def edit_manifest(members, **fields):
    manifest = {**json.loads(members["manifest.json"]), **fields}
    return {**members, "manifest.json": json.dumps(manifest).encode()}


CONTRACT = {"name": "x", "shape": [1, 6, 6], "dtype": "uint8"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"ticks": 3}, "ticks not as in the program"),
        ({"outputs": []}, "outputs not as in the program"),
        ({"parts": {"exact": []}}, "parts"),
        ({"parts": {"exact": 1, "analog": [], "host": [], "approximate": []}}, "parts"),
        ({"input": None}, "input contract: malformed"),
        ({"input": {**CONTRACT, "shape": [6, 6]}}, r"input\.shape"),
        ({"input": {**CONTRACT, "shape": [1, -6, 6]}}, "input contract: shape"),
        ({"input": {**CONTRACT, "shape": 6}}, "input contract: shape|damaged"),
        ({"input": {**CONTRACT, "dtype": "object"}}, "input contract: dtype"),
        ({"input": {**CONTRACT, "timesteps": -1}}, "input contract: timesteps"),
        ({"input": {**CONTRACT, "timesteps": 3}}, "input.timesteps not as in the program"),
        ({"input": {**CONTRACT, "scale": 0}}, "not positive"),
        ({"input": {**CONTRACT, "scale": [1.0, 2.0]}}, "scale"),
        ({"input": {**CONTRACT, "offset": "1"}}, "offset"),
        ({"input": {**CONTRACT, "code": "x"}}, "malformed"),
    ],
)
def test_a_consistent_but_wrong_manifest_is_refused(members, tmp_path, fields, message):
    with pytest.raises(BadInputError, match=message):
        load(forged(tmp_path / "a.snn", edit_manifest(members, **fields)))


def edit_graph(members, change):
    graph = onnx.load_from_string(members["graphs/quantised.onnx"])
    change(graph)
    return {**members, "graphs/quantised.onnx": graph.SerializeToString()}


def relocate(tensor, **place):
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in place.items():
        tensor.external_data.add(key=key, value=value)


def weight(graph):
    return next(t for t in graph.graph.initializer if t.name == "conv2_w")


def in_a_constant(graph, tensor):
    tensor.name, tensor.data_type = "t", onnx.TensorProto.INT8
    tensor.dims.append(432)
    node = onnx.helper.make_node("Constant", [], ["stolen"], value=tensor)
    graph.functions[0].node.append(node)


INSIDE = {"location": "weights.bin", "offset": "0", "length": "432"}


@pytest.mark.parametrize(
    "place",
    [
        {**INSIDE, "location": "/etc/passwd"},
        {**INSIDE, "location": "../weights.bin"},
        {**INSIDE, "offset": "1000000000"},
        {**INSIDE, "offset": "-64"},
        {**INSIDE, "offset": "x"},
        {**INSIDE, "length": "431"},
        {"location": "weights.bin"},
        {},
    ],
)
def test_graphs_read_nothing_but_the_weights(members, tmp_path, place):
    def in_a_function(graph):
        tensor = onnx.TensorProto()
        relocate(tensor, **{**place, "location": place.get("location", "x") + "/.."})
        in_a_constant(graph, tensor)

    for change in (lambda graph: relocate(weight(graph), **place), in_a_function):
        model = load(forged(tmp_path / "a.snn", edit_graph(members, change)))
        with pytest.raises(BadInputError, match="graph 'quantised': weight"):
            model.onnx("quantised")
        with pytest.raises(BadInputError, match="graph 'quantised': weight"):
            model.graphs["quantised"]


def test_what_is_no_graph_is_refused_when_it_is_asked_for(members, tmp_path):
    path = tmp_path / "a.snn"
    garbage = load(forged(path, {**members, "graphs/quantised.onnx": b"\xff" * 99}))
    with pytest.raises(BadInputError, match="not an ONNX model"):
        Session(garbage, "integer")
    foreign = members["graphs/quantised.onnx"].replace(b"weights.bin", b"weights.\xff\xff\xff")
    binary = load(forged(path, {**members, "graphs/quantised.onnx": foreign}))
    with pytest.raises(BadInputError, match="not UTF-8"):
        Session(binary, "integer")
    empty = load(forged(path, {**members, "graphs/quantised.onnx": b""}))
    with pytest.raises(BadInputError, match="no populations fire1, fire2"):
        Session(empty, "integer")


def rewrite_reference(members, **changed):
    parts = read_members(io.BytesIO(members["reference.npz"]), "npz")
    stream = io.BytesIO()
    write_members(stream, {k: v for k, v in {**parts, **changed}.items() if v is not None})
    return {**members, "reference.npz": stream.getvalue()}


def npy(array):
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"x.npy": None}, "'x' is missing"),
        ({"x.npy": npy(np.zeros((5, 6, 6), np.uint8))}, "not for this network"),
        ({"x.npy": npy(np.array([{}], dtype=object))}, "do not hold|damaged"),
        ({"counts.fire1.npy": npy(np.zeros((1, 5, 3, 6, 6)))}, "counts of 'fire1'"),
        ({"counts.fire1.npy": None}, "missing"),
        ({"readouts.logits.npy": b"garbage"}, "damaged"),
        ({"digests.json": b"[]"}, "malformed digests"),
        ({"digests.json": b'{"fire1": {"sha256": 1, "spikes": 2, "size": 3}}'}, "malformed"),
        ({"digests.json": b'{"y": {"sha256": "", "spikes": 2, "size": 3}}'}, "digests are not"),
    ],
)
def test_references_that_are_not_of_the_network_are_refused(members, tmp_path, changed, message):
    with pytest.raises(BadInputError, match=message):
        load(forged(tmp_path / "a.snn", rewrite_reference(members, **changed)))


# --- graphs for ONNX Runtime ----------------------------------------------------------------------


def test_graphs_are_extracted_once(saved, cache):
    first = load(saved).onnx("quantised")
    assert Path(first).is_relative_to(cache)
    stamp = os.stat(first).st_mtime_ns
    assert load(saved).onnx("quantised") == first
    assert os.stat(first).st_mtime_ns == stamp
    assert sorted(p.name for p in Path(first).parent.iterdir()) == [
        "quantised.onnx",
        "spiking.onnx",
        "weights.bin",
    ]


def test_an_incomplete_cache_is_repaired(saved, cache):
    path = Path(load(saved).onnx("quantised"))
    whole = (path.parent / "weights.bin").read_bytes()
    (path.parent / "weights.bin").write_bytes(whole[:10])
    load(saved).onnx("quantised")
    assert (path.parent / "weights.bin").read_bytes() == whole
    assert [p.name for p in cache.iterdir()] == [path.parent.name]


def test_a_cache_that_cannot_be_written_is_replaced_by_a_temporary_folder(
    saved, tmp_path, monkeypatch
):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("SNNCC_CACHE", str(tmp_path / "file" / "cache"))
    model = load(saved)
    path = Path(model.onnx("quantised"))
    x = small_model.samples()
    assert not any(
        m.mismatched for m in model.reference.compare(Session(model, "integer").trace(x))
    )
    assert path.exists()
    del model
    assert not path.exists()


def test_graphs_without_weights_cannot_be_run(saved):
    for stage in ("integer", "absent"):
        with pytest.raises(BadInputError, match=f"no graph '{stage}' with weights"):
            load(saved).onnx(stage)


# --- imports --------------------------------------------------------------------------------------

LIGHT = """
import sys
import snncc, snncc.runtime.artifact, snncc.runtime.session, snncc.backends.target
import numpy as np
model = snncc.load(sys.argv[1])
out, = snncc.Session(model, "clocked").run(None, {"x": np.zeros((1, 1, 6, 6), np.uint8)})
assert out.shape == (1, 5) and snncc.__version__
heavy = ("torch", "onnxscript", "onnxruntime", "onnx", "onnx_ir", "google.protobuf")
print([name for name in heavy if name in sys.modules])
"""


def test_loading_and_simulating_needs_numpy_only(saved):
    command = [sys.executable, "-W", "error", "-c", LIGHT, str(saved)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"


def test_public_names_are_imported_when_they_are_used():
    assert snncc.load is load
    assert snncc.Session is Session
    assert {"compile", "load", "Session", "CompiledModel", "__version__"} <= set(dir(snncc))
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = snncc.lode


# --- the blob -------------------------------------------------------------------------------------


def test_equal_arrays_share_their_bytes_and_all_come_back():
    blob = Blob()
    arrays = [np.arange(9, dtype=t).reshape(3, 3) for t in (np.int8, np.int64, ">i8")]
    arrays.append(np.asfortranarray(arrays[1]))
    entries = [blob.add_array(a) for a in arrays]
    assert len({e["offset"] for e in entries}) == 2
    data = blob.tobytes()
    for array, entry in zip(arrays, entries, strict=True):
        again = array_at(data, entry, ("int8", "int64"), "test")
        assert (again == array).all()
        assert not again.flags.writeable
