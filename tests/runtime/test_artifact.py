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
from artifact_files import repacked
from hypothesis import assume, given, settings
from networks import cases
from onnx import numpy_helper

import snncc
from snncc.backends.clocked.engine import ClockedEngine
from snncc.errors import BadInputError, SnnccError
from snncc.ir.metadata import STATISTICS
from snncc.runtime.artifact import CompiledModel, load, manifest_of
from snncc.runtime.container import ALIGNMENT, Blob, array_at
from snncc.runtime.contract import InputContract, by_timestep
from snncc.runtime.reference import Reference
from snncc.runtime.session import Session

ROOT = Path(snncc.__file__).parents[1]


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
    assert again.report == model.report
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
    assume(not any(a.masked for a in program.accumulators))  # a file's masks are its contract's
    activity = ClockedEngine(program).run(x)
    is_sequence = x.ndim > len(program.source.shape) + 1
    samples = x.swapaxes(0, 1) if is_sequence else x
    steps, top = program.timesteps if is_sequence else 0, program.source.payload
    contract = InputContract("x", program.source.shape, top=top, timesteps=steps)
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
    known = json.loads({p.key: p.value for p in info.metadata_props}[STATISTICS])
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
    with pytest.raises(BadInputError, match=r"exists already.*overwrite=True") as caught:
        model.save(path)
    assert caught.value.exit_code == 6
    assert path.read_bytes() == b"mine"
    model.save(path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == ["a.snn"]
    load(path)


@pytest.mark.parametrize(
    ("step", "overwrite"), [("fsync", False), ("link", False), ("replace", True)]
)
def test_nothing_is_left_behind_when_writing_fails(model, tmp_path, monkeypatch, step, overwrite):
    monkeypatch.setattr(f"os.{step}", lambda *_: (_ for _ in ()).throw(OSError(28, "disk full")))
    with pytest.raises(BadInputError, match="disk full"):
        model.save(tmp_path / "a.snn", overwrite=overwrite)
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


# --- imports --------------------------------------------------------------------------------------

LIGHT = """
import sys
import snncc, snncc.runtime.artifact, snncc.runtime.session, snncc.backends.engines
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
