"""``snncc eval``: a compiled network on a whole data set, shard by shard."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from snncc.cli.accuracy import interval
from snncc.cli.files import WRITTEN, check_input_file, check_output_file
from snncc.cli.profile import joules, model_names
from snncc.cli.report_lines import note_lines
from snncc.cli.screen import Screen, human, percent, plural, progress_bar, write_json
from snncc.cli.shared_options import PATH, file_argument, json_option, limit_option
from snncc.errors import BadInputError, Option, UsageError, Words

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from snncc.runtime.artifact import CompiledModel
    from snncc.runtime.data_sets import DataSet
    from snncc.runtime.evaluation.evaluate import Evaluation
    from snncc.runtime.evaluation.shards import Job, Task
    from snncc.runtime.evaluation.store import Store
    from snncc.runtime.evaluation.workers import Workers

__all__ = ["eval_"]

_MOST_CLASSES = 20  # of which the whole confusion is shown
_MOST_PAIRS = 12
_SHARD = 128
_MODELS = ("45nm-int8", "45nm-int8+memory")


@click.command("eval", short_help="Evaluate a compiled network on a whole data set.")
@file_argument
@click.option(
    "--input",
    "--data",
    "data",
    type=PATH,
    metavar="DATA",
    required=True,
    help="npz, npy, idx, a folder of images, of tar files (webdataset) or of Arrow files "
    "(Hugging Face datasets, saved).",
)
@click.option("--labels", type=PATH, metavar="DATA", help="Classes, if DATA does not hold them.")
@click.option("--unlabelled", is_flag=True, help="Go without labels: no accuracy, no confusion.")
@click.option(
    "--trained",
    type=PATH,
    metavar="DATA",
    help="What the trained network takes each sample for, as labels: count where it is another "
    "class.",
)
@limit_option
@click.option(
    "--engine", default="event", show_default=True, metavar="NAME", help="See snncc engines."
)
@click.option(
    "--compare/--no-compare",
    default=True,
    show_default=True,
    help="Run engine integer, too, and count the classes and results that differ.",
)
@click.option(
    "--energy",
    "models",
    callback=model_names,
    metavar="MODEL,…",
    help="Models of energy by name, or OWN.toml, as of snncc profile.  [default: 45nm-int8 and "
    "45nm-int8+memory]",
)
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share the work, one thread each.",
)
@click.option(
    "--scheduler",
    metavar="ADDRESS",
    help="Run on a cluster of Dask distributed: tls://HOST:8786, tcp:// of this machine, or "
    "local:N, which starts one with N workers here.",
)
@click.option(
    "--send-data",
    is_flag=True,
    help="Send samples to the workers of a cluster, which else read DATA under the same path.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    metavar="N",
    help="Samples simulated together.  [default: 32, of large networks fewer]",
)
@click.option(
    "--shard",
    "size",
    type=click.IntRange(min=1),
    default=_SHARD,
    show_default=True,
    metavar="N",
    help="Samples run and kept together.",
)
@click.option(
    "--store",
    type=PATH,
    metavar="FILE",
    help="Keep results there.  [default: FILE.DATA.ENGINE.eval beside the network]",
)
@click.option("-f", "--force", is_flag=True, help="Begin anew, whatever the store holds.")
@json_option
def eval_(as_json: bool, **given: Any) -> None:
    """Evaluate a compiled network on a whole data set of any size, in constant memory.

    Results are kept shard by shard in a file: a run that was ended, however it was, goes on there
    when the same command is given again, and nothing is run or counted twice.
    """
    chosen = _Chosen(**given)
    _check_paths(chosen)
    from snncc.runtime.evaluation.evaluate import run_job
    from snncc.runtime.evaluation.store import open_store

    model, hashed = _load(chosen.file)
    with closing(_open(chosen, model)) as data:
        trained = None if chosen.trained is None else data.classes_of(chosen.trained)
        job = _job(chosen, model, data, hashed)
        path = chosen.store or _store_of(chosen)
        check_output_file(path, force=True)
        with open_store(path, job, chosen.file.name, anew=chosen.force) as store:
            WRITTEN.append(path)
            found = _head(chosen, model, data, store, path)
            start = time.perf_counter()
            with _workers(chosen, job, model) as workers, _progress(job, store) as progress:
                evaluation = run_job(job, store, workers, progress, _sent(chosen, job, data))
            found |= _speed(job, found, time.perf_counter() - start, store)
    found |= _result(evaluation) | _trained(evaluation, trained, model)
    if as_json:
        write_json(found)
    else:
        _show(Screen(), found, model)


@dataclass(frozen=True)
class _Chosen:
    """What the command line says; fields as its options."""

    file: Path
    data: Path
    labels: Path | None
    unlabelled: bool
    trained: Path | None
    limit: int | None
    engine: str
    compare: bool
    models: tuple[str, ...] | None
    workers: int
    scheduler: str | None
    send_data: bool
    batch: int | None
    size: int
    store: Path | None
    force: bool


def _check_paths(chosen: _Chosen) -> None:
    """Whatever can fail without work fails before it."""
    if chosen.scheduler is not None and chosen.workers > 1:
        raise UsageError("--workers and --scheduler exclude each other; local:N starts N workers")
    if chosen.send_data and chosen.scheduler is None:
        raise UsageError("--send-data belongs to --scheduler")
    if chosen.scheduler is not None:
        from snncc.runtime.evaluation.cluster import address_of

        address_of(chosen.scheduler)
    check_input_file(chosen.file)
    check_input_file(chosen.data, may_be_folder=True)
    for path in filter(None, (chosen.labels, chosen.trained)):
        check_input_file(path)


def _store_of(chosen: _Chosen) -> Path:
    """Beside the network, named after it, the data and the engine."""
    data = chosen.data.resolve()
    name = f"{chosen.file.stem}.{data.name if data.is_dir() else data.stem}.{chosen.engine}.eval"
    return chosen.file.with_name(name)


def _load(file: Path) -> tuple[CompiledModel, str]:
    """The network, and the hash of its file."""
    from snncc.runtime.array_files import reading
    from snncc.runtime.artifact import read_model
    from snncc.runtime.container import stream_sha256
    from snncc.system.damage import open_regular

    with reading(file), open_regular(file) as opened:
        return read_model(opened, str(file)), stream_sha256(opened)


def _open(chosen: _Chosen, model: CompiledModel) -> DataSet:
    """The data; what can be wrong with all of them is found before any is run."""
    from snncc.runtime.contract import class_result
    from snncc.runtime.data_sets import open_data

    contract = model.input
    masks = bool(contract.patches)
    data = open_data(chosen.data, chosen.labels, contract.sample, chosen.limit, masks)
    try:
        first = data.read(0, 1)
        contract.check(first.x, first.mask, first.origin)
        if (result := class_result(model.results)) is not None:
            _check_labels(chosen, data, result.shape[0])
    except BaseException:
        data.close()
        raise
    return data


def _check_labels(chosen: _Chosen, data: DataSet, classes: int) -> None:
    if chosen.unlabelled:
        data.labels = None
    elif data.labels is None:
        raise BadInputError(
            Words(
                f"{chosen.data}: has no labels; give them with ",
                Option("labels", like="DATA"),
                ", or go without: ",
                Option("unlabelled", True),
            )
        )
    elif (most := int(data.labels.max())) >= classes:
        where = chosen.labels or data.origin
        raise BadInputError(f"{where}: label {most}, but the network has {classes} classes")


def _job(chosen: _Chosen, model: CompiledModel, data: DataSet, hashed: str) -> Job:
    import snncc
    from snncc.backends.engines import require_engine
    from snncc.runtime.evaluation.shards import Job
    from snncc.runtime.profile.models import models_named
    from snncc.runtime.verify import batch_of

    models = models_named(_MODELS if chosen.models is None else chosen.models)
    require_engine(chosen.engine, model)
    compare = chosen.compare and chosen.engine != "integer"
    if compare:
        require_engine("integer", model)
    return Job(
        artefact=hashed,
        data=str(chosen.data.absolute()),
        labels=None if chosen.labels is None else str(chosen.labels.absolute()),
        unlabelled=chosen.unlabelled,
        limit=chosen.limit,
        samples=data.total,
        stored_shape=data.stored_shape,
        dtype=data.dtype.name,
        size=chosen.size,
        engine=chosen.engine,
        batch=min(chosen.size, chosen.batch or batch_of(model.program)),
        compare=compare,
        energy=models,
        version=snncc.__version__,
    )


@contextmanager
def _workers(chosen: _Chosen, job: Job, model: CompiledModel) -> Iterator[Workers]:
    from snncc.runtime.evaluation.workers import Here, Processes

    if chosen.scheduler is not None:
        from snncc.runtime.evaluation.cluster import address_of, connected

        with connected(address_of(chosen.scheduler), job, chosen.file, chosen.send_data) as cluster:
            yield cluster
    elif chosen.workers == 1:
        with closing(Here(job, model)) as here:
            yield here
    else:
        with closing(Processes(job, chosen.file, chosen.workers)) as processes:
            yield processes


def _sent(chosen: _Chosen, job: Job, data: DataSet) -> Callable[[Task], Task] | None:
    """What puts its samples into a task, where workers do not read them."""
    if not chosen.send_data:
        return None
    return lambda task: replace(task, part=data.read(*job.bounds(task.number)))


@contextmanager
def _progress(job: Job, store: Store) -> Iterator[Any]:
    done = sum(shard.samples for shard in store.done.values())
    with progress_bar(f"eval on {job.engine}", job.samples, done) as progress:
        yield progress


# -- the result ----------------------------------------------------------------------------


def _head(
    chosen: _Chosen, model: CompiledModel, data: DataSet, store: Store, path: Path
) -> dict[str, Any]:
    return {
        "name": model.name,
        "hash": model.sha256,
        "engine": chosen.engine,
        "data": data.origin,
        "notes": list(data.notes),
        "store": str(path),
        "found_in_store": sum(shard.samples for shard in store.done.values()),
    }


def _speed(job: Job, found: Mapping[str, Any], seconds: float, store: Store) -> dict[str, Any]:
    ran = job.samples - found["found_in_store"]
    return {
        "ran": ran,
        "seconds": round(seconds, 3),
        "samples_per_second": round(ran / max(seconds, 1e-9), 1),
        "worker_seconds": round(store.seconds, 3),
    }


def _result(e: Evaluation) -> dict[str, Any]:
    from snncc.runtime.evaluation.shards import TOP

    return {
        "samples": e.samples,
        "top_1": _share(e.right, e.samples),
        f"top_{TOP}": _share(e.top, e.samples),
        "confusion": None if e.confusion is None else _cells(e.confusion),
        "integer": None
        if e.other_readouts is None
        else {"classes_differ": e.other_class, "results_differ": e.other_readouts},
        "spikes_per_sample": e.spikes / e.samples,
        "sops_per_sample": e.sops / e.samples,
        "energy_pj_per_sample": {name: pj / e.samples for name, pj in e.energy_pj.items()},
        "populations": [
            {"name": name, "spikes": p.spikes, "sops": p.sops} for name, p in e.populations.items()
        ],
        "readouts_sha256": e.readouts,
        "predictions": None if e.classes is None else e.classes.tolist(),
    }


def _cells(confusion: npt.NDArray[np.int64]) -> list[list[int]]:
    """Label, class and how many samples, where there are some."""
    return [
        [int(i), int(j), int(confusion[i, j])] for i, j in zip(*confusion.nonzero(), strict=True)
    ]


def _trained(e: Evaluation, classes: Any, model: CompiledModel) -> dict[str, Any]:
    """How often the class is the trained network's: here, and on the compiler's samples."""
    same = None if classes is None or e.classes is None else int((e.classes == classes).sum())
    report = model.reported
    return {
        "trained": _share(same, e.samples),
        "trained_when_compiled": None
        if report is None or report.agreement is None
        else {"share": report.agreement, "samples": report.samples},
    }


def _share(right: int | None, samples: int) -> dict[str, Any] | None:
    if right is None:
        return None
    low, high = interval(right, samples)
    return {"right": right, "share": right / samples, "interval": [low, high]}


def _show(screen: Screen, found: Mapping[str, Any], model: CompiledModel) -> None:
    samples = plural(found["samples"], "sample")
    screen.line("evaluated", f"{found['name']} on {found['engine']}", samples, found["data"])
    for line in note_lines(found["notes"]):
        screen.line(*line)
    if there := found["found_in_store"]:
        screen.line("resumed", f"{there:,} of them were done", f"{found['ran']:,} run now")
    _show_accuracy(screen, found)
    if (differ := found["integer"]) is not None:
        classes = f"{differ['classes_differ']:,} classes and " if found["predictions"] else ""
        screen.line("integer", f"{classes}results of {differ['results_differ']:,} samples differ")
    _show_trained(screen, found)
    spikes, sops = human(found["spikes_per_sample"]), human(found["sops_per_sample"])
    screen.line("activity", f"{spikes} spikes and {sops} SOPs per sample (SOPs without the input)")
    energy = found["energy_pj_per_sample"].items()
    if told := [f"{joules(pj)} ({name})" for name, pj in energy]:
        screen.line("energy", "per sample", *told)
    if found["ran"]:
        rate, seconds = found["samples_per_second"], found["seconds"]
        screen.line("speed", f"{rate:.0f} samples/s", f"{seconds:.1f} s")
    screen.line(
        "results", f"sha256 {found['readouts_sha256'][:16]}…", "of all numbers of all results"
    )
    screen.line("store", found["store"])
    if found["confusion"] is not None:
        screen.text("")
        _show_confusion(screen, found["confusion"])
    screen.text("")
    _show_populations(screen, found, model)


def _show_accuracy(screen: Screen, found: Mapping[str, Any]) -> None:
    for name in [key for key in found if key.startswith("top_")]:
        share = found[name]
        label = name.replace("_", "-")
        if share is None:
            screen.line(label, "not measured: no labels, or no classes")
            continue
        low, high = (f"{100 * bound:.2f}" for bound in share["interval"])
        right = f"{share['right']:,} of {found['samples']:,}"
        shown = percent(share["share"])
        screen.line(label, f"{shown} (95 % interval: {low} to {high} %)", right)


def _show_trained(screen: Screen, found: Mapping[str, Any]) -> None:
    told = []
    if (here := found["trained"]) is not None:
        same = f"{here['right']:,} of {found['samples']:,}, {percent(here['share'])}"
        told.append(f"same class for {same}")
    if (before := found["trained_when_compiled"]) is not None:
        samples = plural(before["samples"], "calibration sample")
        told.append(f"same class for {percent(before['share'])} of {samples} when compiled")
    if told:
        screen.line("trained", *told)


def _show_confusion(screen: Screen, cells: list[list[int]]) -> None:
    """The whole of few classes; of many what is mistaken most."""
    size = 1 + max(max(label, found) for label, found, _ in cells)
    if size <= _MOST_CLASSES:
        counts = {(label, found): f"{n:,}" for label, found, n in cells}
        head = ("label \\ class", *map(str, range(size)))
        rows = [[str(i), *(counts.get((i, j), "-") for j in range(size))] for i in range(size)]
        screen.table(head, rows, right=range(1, size + 1))
        return
    wrong = [cell for cell in cells if cell[0] != cell[1]]
    most = sorted(wrong, key=lambda cell: (-cell[2], *cell))[:_MOST_PAIRS]
    screen.table(
        ("label", "taken for", "samples"),
        [(str(label), str(found), f"{n:,}") for label, found, n in most],
        right=(0, 1, 2),
    )


def _show_populations(screen: Screen, found: Mapping[str, Any], model: CompiledModel) -> None:
    modules = {n.name: n.module or n.name for n in model.program.neurons}
    rows = [
        (
            modules[p["name"]],
            human(p["spikes"] / found["samples"]),
            human(p["sops"] / found["samples"]),
        )
        for p in found["populations"]
    ]
    screen.table(("population", "spikes/sample", "SOPs/sample"), rows, right=(1, 2))
