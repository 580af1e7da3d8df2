"""The command line: one function per verb, each of which imports its work only when it is called."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from clickwise import __version__
from clickwise.errors import LAUNCHED, ClickwiseError, DataError, Interrupted, ToldElsewhere, UsageError, disk_error
from clickwise.latest_run import latest_run
from clickwise.memory_limits import out_of_memory
from clickwise.progress import show_log
from clickwise.threads import let_them_sleep, quiet_transport

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Verbs(typer.core.TyperGroup):
    """Interrupted verbs end in a message of ours; typer has none."""

    def invoke(self, context: Any) -> Any:
        try:
            return super().invoke(context)
        except KeyboardInterrupt as received:
            interrupted = _interrupted()
            interrupted.at_once = getattr(received, "at_once", False)
            raise interrupted from None


app = typer.Typer(cls=_Verbs, no_args_is_help=True, pretty_exceptions_enable=False,
                  rich_markup_mode=None,
                  help="Click-through-rate models from raw click logs: prepare, train, measure, predict.",
                  context_settings={"help_option_names": ["-h", "--help"]})


def _recipe_names(started: str) -> list[str]:
    """What a shell completes in the place of a recipe."""
    from clickwise.recipe import shipped_recipes

    return [name for name in shipped_recipes() if name.startswith(started)]


RecipeName = Annotated[str, typer.Argument(metavar="RECIPE", autocompletion=_recipe_names, help=(
    "A recipe file, or a shipped name: kuairand/dlrm."))]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", show_default=False,
                                                          help="Overrides, such as train.batch_size=4096.")]
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", callback=latest_run, help=(
    "A run folder that clickwise train wrote; of runs/DATASET-MODEL the latest run."))]
AllowImports = Annotated[list[str] | None, typer.Option("--allow-import", metavar="NAME", show_default=False, help=(
    "Import this code that the run folder names, such as my_package.MyModel; nothing else is imported. Repeatable."))]
TrustPaths = Annotated[bool, typer.Option("--trust-paths", help=(
    "Also read files outside of the folder that a Feature Spec or a link points to."))]
TraceFolder = Annotated[Path | None, typer.Option("--profile", metavar="DIR", show_default=False, help=(
    "Write a trace of ten steps there, for https://ui.perfetto.dev, and name the operators that take longest."))]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]


def _latest_runs(folders: list[Path]) -> list[Path]:
    return [*{run.resolve(): run for run in map(latest_run, folders)}.values()]  # runs/* holds runs/latest too


class Format(StrEnum):
    onnx = "onnx"
    pt2 = "pt2"
    triton = "triton"


class TritonBackend(StrEnum):
    onnxruntime = "onnxruntime"
    python = "python"


class TritonDevice(StrEnum):
    cpu = "cpu"
    gpu = "gpu"


class TableRows(StrEnum):
    fp32 = "fp32"
    bf16 = "bf16"
    int8 = "int8"


class What(StrEnum):
    train = "train"
    inference = "inference"
    data = "data"
    serve = "serve"


def main() -> None:
    """Runs the command line; a person's mistake ends in one message and exit code 1 or 2, never in a traceback. SIGINT
    and SIGTERM end it alike, with 130 and 143."""
    let_them_sleep()
    quiet_transport()
    received = _interrupted_by_signals()
    show_log()
    try:
        app()
    except ToldElsewhere as error:
        _end(error, error.exit_code)
    except ClickwiseError as error:
        _complain(str(error), 128 + received[0] if received else error.exit_code, error)
    except KeyboardInterrupt as error:
        _complain(str(_interrupted()), 128 + (received or [signal.SIGINT])[0], error)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        if (known := out_of_memory(error) or disk_error(error)) is None:
            raise
        _complain(str(known), known.exit_code, error)
    except Exception as error:
        if received:  # DuckDB says RuntimeError
            _complain(str(_interrupted()), 128 + received[0])
        if (known := out_of_memory(error)) is None:
            raise
        _complain(str(known), 1)
    finally:
        if received and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, 0)


def _interrupted() -> Interrupted:
    return Interrupted("interrupted", found="no end of the work; nothing was left half-written",
                       do=f"the same again: {shlex.join(['clickwise', *sys.argv[1:]])}")


def _interrupted_by_signals() -> list[int]:
    """From now on SIGINT and SIGTERM raise KeyboardInterrupt; the list holds those that came.

    While a module is imported they wait, where the system has such a timer: some libraries catch whatever their imports
    raise, and go on without them.
    """
    received: list[int] = []

    def interrupt(number: int, frame: Any) -> None:
        if number in _SIGNALS:
            received.append(number)
        while frame is not None and "importlib._bootstrap" not in frame.f_code.co_filename:
            frame = frame.f_back
        if frame is None or not hasattr(signal, "setitimer"):
            raise KeyboardInterrupt
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, 0.05)  # and look again

    for number in _SIGNALS:
        signal.signal(number, interrupt)
    return received


def _complain(message: str, code: int, error: BaseException | None = None) -> None:
    if not (LAUNCHED in os.environ and code > 128):  # a signal came to all of them
        print(f"clickwise: {message}", file=sys.stderr)
    _end(error, code)


def _end(error: BaseException | None, code: int) -> None:
    if getattr(error, "at_once", False):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _print_json(value: Any) -> None:
    from clickwise.files import to_json

    print(to_json(value, indented=True))


@app.command()
def quickstart(overrides: Overrides = None,
               folder: Annotated[Path, typer.Option(help="Where data and runs are written.")] = Path("."),
               as_json: AsJson = False) -> None:
    """Prepare the shipped real data, train a DLRM on it and write report.html."""
    from clickwise.verbs.quickstart import quickstart

    _show_run(quickstart(folder=folder, overrides=overrides or []), as_json)


@app.command()
def prepare(recipe: RecipeName, overrides: Overrides = None,
            given: Annotated[Path | None, typer.Option("--with", metavar="FOLDER", help=(
                "A prepared folder or a run. Its encoding is used for new raw rows: those of dataset.input, or of the "
                "recipe's mappings. Nothing is fitted."))] = None,
            overwrite: Annotated[bool, typer.Option(help="Prepare again even if the output is up to date.")] = False,
            as_json: AsJson = False) -> None:
    """Turn raw logs into columns and a Feature Spec."""
    from clickwise import prepare
    from clickwise.recipe import load

    folder = prepare.run(load(recipe, overrides or []), where=recipe, overwrite=overwrite, given=given)
    _print_json(prepare.summary(folder)) if as_json else print(folder)


recipes_app = typer.Typer(rich_markup_mode=None, help="Shipped recipes: list, show, copy; check one of your own.")
app.add_typer(recipes_app, name="recipes")


@recipes_app.callback(invoke_without_command=True)
def recipes(context: typer.Context) -> None:
    """List the shipped recipes."""
    if context.invoked_subcommand is None:
        from clickwise.verbs.recipes import list_recipes

        for name, title in list_recipes():
            print(f"{name:<32} {title}")


@recipes_app.command()
def show(recipe: RecipeName, as_json: AsJson = False) -> None:
    """Every key of a recipe: its value, default, meaning, and where it is defined."""
    from clickwise.verbs.recipes import show

    found = show(recipe)
    if as_json:
        _print_json(found)
        return
    for key in found:
        default = "" if key["value"] == key["default"] else f"   (default {json.dumps(key['default'])})"
        print(f"{key['key']}: {json.dumps(key['value'])}{default}\n    {key['meaning']}  [{key['where']}]")


@recipes_app.command()
def copy(recipe: RecipeName, file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write.")]) -> None:
    """Copy a shipped recipe, to change it."""
    from clickwise.verbs.recipes import copy

    copy(recipe, file)
    print(file)


@recipes_app.command()
def check(recipe: RecipeName) -> None:
    """Check a recipe: all that is wrong with it at once."""
    from clickwise.verbs.recipes import check

    errors = check(recipe)
    for error in errors:
        print(f"{error}\n", file=sys.stderr)
    if errors:
        raise typer.Exit(2)
    print(f"{recipe}: nothing wrong")


@recipes_app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, by which editors of YAML complete and check them."""
    from clickwise.recipe_schema import schema

    _print_json(schema())


spec_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Feature Specs: infer drafts one from a file.")
app.add_typer(spec_app, name="spec")


@spec_app.command()
def infer(files: Annotated[list[Path], typer.Argument(metavar="FILE...", help=(
              "CSV, Parquet or JSON lines (.jsonl); texts plain or .gz."))],
          out: Annotated[Path, typer.Option(help="The folder to write feature_spec.yaml into.")],
          label: Annotated[str | None, typer.Option(help="The column to predict.")] = None,
          display: Annotated[str | None, typer.Option(help="The column that groups rows for GAUC.")] = None,
          categorical: Annotated[list[str] | None, typer.Option(help="A column of categories. Repeatable.")] = None,
          numerical: Annotated[list[str] | None, typer.Option(help="A column of numbers. Repeatable.")] = None,
          multi_hot: Annotated[list[str] | None, typer.Option(metavar="NAME=DELIMITER", help=(
              "A column of lists, and the text between their values: tags=;. Repeatable."))] = None,
          formats: Annotated[list[str] | None, typer.Option("--format", metavar="NAME=FORMAT", help=(
              "A column of dates and their format: created=%d/%m/%Y. Repeatable."))] = None,
          ignore: Annotated[list[str] | None, typer.Option(help="A column to leave out. Repeatable.")] = None,
          delimiter: Annotated[str | None, typer.Option(help=(
              "Between the fields of CSV: ; or || or tab. Detected by default."))] = None,
          header: Annotated[bool | None, typer.Option(help=(
              "Whether CSV begins with names. Detected by default."))] = None,
          overwrite: Annotated[bool, typer.Option(help="Replace a spec that is there.")] = False,
          as_json: AsJson = False) -> None:
    """Draft a Feature Spec from raw files: types, cardinalities, hotness, a guess at channels."""
    from clickwise.verbs.spec import infer

    found = infer(files, out=out, label=label, display=display, categorical=categorical or [],
                  numerical=numerical or [], multi_hot=multi_hot or [], formats=formats or [],
                  ignore=ignore or [], delimiter=delimiter, header=header, overwrite=overwrite)
    if as_json:
        _print_json(found)
        return
    print(f"{found['spec']}  {found['rows']:,} rows")
    for channel, names in found["channels"].items():
        print(f"  {channel:<12} {', '.join(names)}")
    for mapping, names in found["files"].items() if len(files) > 1 else ():
        print(f"  {mapping:<12} {', '.join(names)}")
    if found["left_out"]:
        print(f"  {'left out':<12} {', '.join(found['left_out'])}")
    for name, check in found["check"].items():
        print(f"  please check {name}: {check}")
    print(f"read it, correct it, then: {found['next']}")


@app.command()
def synth(variant: Annotated[str, typer.Argument(help="criteo_t15, criteo_t3, criteo_t0, criteo_raw, outbrain_raw, "
                                                      "amazon_raw, or a spec file.")],
          out: Annotated[Path, typer.Option(help="The folder to write.")],
          rows: Annotated[int, typer.Option(min=1, help="Training rows.")] = 1_000_000,
          test_rows: Annotated[int | None, typer.Option(min=1, help="Test rows; a tenth by default.")] = None,
          alpha: Annotated[float, typer.Option(min=0.0, help="Skew of the ids' power law.")] = 1.45,
          signal: Annotated[str, typer.Option(help="The planted signal.")] = "additive",
          users: Annotated[int | None, typer.Option(min=1, help="Users of amazon_raw, which has no --rows.")] = None,
          seed: int = 0,
          threads: Annotated[int | None, typer.Option(min=1, help=(
              "Threads; the files are the same for any number."))] = None,
          as_json: AsJson = False) -> None:
    """Make data with a planted signal, whose best possible AUC is known."""
    from clickwise.verbs.synth import synth

    result = synth(variant, out=out, rows=rows, test_rows=test_rows, alpha=alpha, signal=signal, seed=seed,
                   threads=threads, users=users)
    if as_json:
        _print_json(result)
    else:
        for key, value in result.items():
            print(f"{key}  {value}")


@app.command()
def transcode(source: Annotated[Path, typer.Argument(metavar="IN", help="A folder with feature_spec.yaml.")],
              out: Annotated[Path, typer.Option(help="The folder to write.")], as_json: AsJson = False) -> None:
    """Turn CSV, Parquet or TFRecords with a Feature Spec into split_binary."""
    from clickwise.data.transcode import transcode

    transcode(source, out)
    _print_json({"folder": str(out)}) if as_json else print(out)


@app.command()
def train(recipe: Annotated[str | None, typer.Argument(metavar="RECIPE", autocompletion=_recipe_names, help=(
              "A recipe file or shipped name."))] = None,
          overrides: Overrides = None,
          resume: Annotated[Path | None, typer.Option(metavar="RUN", help=(
              "Continue this run exactly; of runs/DATASET-MODEL the latest one."))] = None,
          out: Annotated[Path, typer.Option(help="Where run folders go.")] = Path("runs"),
          name: Annotated[str | None, typer.Option(show_default=False, help=(
              "Name of the run folder: runs/NAME instead of runs/DATASET-MODEL/TIME."))] = None,
          processes: Annotated[int | None, typer.Option(metavar="N", min=1, show_default=False, help=(
              "Number of processes on this machine; they share tables and batches."))] = None,
          timeout: Annotated[float, typer.Option(metavar="SECONDS", min=1, help=(
              "How long one process waits for another that does not answer."))] = 1800.0,
          profile: TraceFolder = None,
          allow_imports: AllowImports = None, trust_paths: TrustPaths = False, as_json: AsJson = False) -> None:
    """Train a model; the result is a run folder with metrics and report.html."""
    from clickwise.recipe import find

    overrides = overrides or []
    if recipe is not None and resume is not None and "=" in recipe:
        recipe, overrides = None, [recipe, *overrides]
    if name is not None and resume is not None:
        raise UsageError(f"--name {name}", found="--resume, of a run that has its folder", expected="one of the two")
    if recipe is not None:
        find(recipe)  # a wrong name is reported at once, before torch is loaded
    if processes is not None and processes > 1:
        from clickwise.launch import launch
        from clickwise.verbs.numa import tell_of_nodes

        tell_of_nodes()
        sys.exit(launch(processes))
    from clickwise.processes import is_first, together
    from clickwise.verbs.train import train

    with together(timeout_s=timeout):
        folder = train(recipe, overrides, resume=resume, out=out, allow_imports=allow_imports or (),
                       trust_paths=trust_paths, profile=profile, run_name=name)
        if is_first():
            _show_run(folder, as_json)


def _show_run(folder: Path, as_json: bool) -> None:
    from clickwise.files import read_json
    from clickwise.manifest import of_run

    paths = [of_run(folder).verified(name) for name in ("metrics.json", "baselines.json")]
    if not paths[0].exists():
        raise DataError(paths[0], found="no such file", expected="what a finished run tells",
                        do=f"delete {folder / 'DONE'}, then: clickwise train --resume {folder}")
    metrics, baselines = (read_json(path) if path.exists() else {} for path in paths)
    if as_json:
        _print_json({"run": str(folder), **metrics, "baselines": baselines})
        return
    print(f"metrics of the {metrics['checkpoint']} checkpoint, step {metrics['checkpoint_step']:,} of "
          f"{metrics['steps']:,}")
    for mapping, values in metrics["mappings"].items():
        _print_metrics(mapping, values)
    if baselines:
        _print_baselines(baselines)
    print(f"report      {folder / 'report.html'}")


def _print_baselines(found: dict[str, Any]) -> None:
    part = "the same rows" if found["rows"] == found["of"] else f"{found['rows']:,} of {found['of']:,} rows"
    print(f"{found['mapping']} beside baselines, on {part}:")
    for name, values in found["results"].items():
        _print_metrics(f"  {name}", values, 21)
    for name, reason in found["not_measured"].items():
        print(f"  {name:<19} not measured: {reason}")


def _print_metrics(mapping: str, values: dict[str, float | None], width: int = 11) -> None:
    def shown(value: float | None) -> str:
        return "undefined" if value is None or value != value else f"{value:.5f}" if isinstance(value, float) \
            else f"{value:,}"

    print(f"{mapping:<{width}} " + "  ".join(f"{name} {shown(value)}" for name, value in values.items()
                                        if not name.endswith(("_error_bound", "_undefined"))))


@app.command()
def plan(recipe: RecipeName, overrides: Overrides = None,
         gpus: Annotated[int | None, typer.Option(help="Number of GPUs, one process for each.")] = None,
         processes: Annotated[int | None, typer.Option(help="Number of processes on CPUs.")] = None,
         memory: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory of each: 80GB.")] = None,
         cardinalities: Annotated[str | None, typer.Option(metavar="SPEC", help=(
             "Sizes of the tables, without data: criteo_t15, criteo_t3, criteo_t0, or a Feature Spec."))] = None,
         alpha: Annotated[float | None, typer.Option(help=(
             "Exponent of the ids' power law. By default ids are counted; without data it is 1.45."))] = None,
         bandwidth: Annotated[str | None, typer.Option(metavar="SIZE", help=(
             "What a process can send in a second: 50GB."))] = None,
         trust_paths: TrustPaths = False, as_json: AsJson = False) -> None:
    """Predict memory and messages of a training on many GPUs or processes, which need not be here."""
    from clickwise.recipe import find

    find(recipe)  # a wrong name is reported at once, before torch is loaded
    from clickwise.verbs.plan import plan
    from clickwise.verbs.plan_text import plan_lines

    found = plan(recipe, overrides or [], gpus=gpus, processes=processes, memory=memory, cardinalities=cardinalities,
                 alpha=alpha, bandwidth=bandwidth, trust_paths=trust_paths)
    if as_json:
        _print_json(found)
    else:
        print("\n".join(plan_lines(found)))
    if found["fits"] is False:
        raise typer.Exit(1)


@app.command()
def evaluate(run: RunFolder, overrides: Overrides = None,
             mapping: Annotated[str | None, typer.Option(help=(
                 "The mapping. By default the test mapping of the recipe."))] = None,
             checkpoint: Annotated[str | None, typer.Option(help=(
                 "best or last. By default best, if there is one."))] = None,
             allow_imports: AllowImports = None, trust_paths: TrustPaths = False, as_json: AsJson = False) -> None:
    """Measure a run's checkpoint on a mapping."""
    from clickwise.verbs.evaluate import evaluate

    if checkpoint not in (None, "best", "last"):
        raise UsageError("--checkpoint", found=repr(checkpoint), expected="best or last")
    measured = evaluate(run, mapping=mapping, overrides=overrides or [], which=checkpoint,
                        allow_imports=allow_imports or (), trust_paths=trust_paths)
    if as_json:
        _print_json({"run": str(run), **measured})
    else:
        print(f"metrics of the {measured['checkpoint']} checkpoint, step {measured['step']:,}")
        _print_metrics(measured["mapping"], measured["metrics"])


@app.command()
def predict(run: RunFolder, overrides: Overrides = None,
            source: Annotated[Path | None, typer.Option("--input", show_default="test", help=(
                "Raw rows: .csv, .tsv, .jsonl (.gz), .parquet; or the name of a mapping."))] = None,
            replay: Annotated[Path | None, typer.Option(metavar="LOG", help=(
                "Raw rows with labels, in the order of time. Counts and histories are updated with them. Without "
                "--input they are scored, each with what was known before it."))] = None,
            out: Annotated[Path | None, typer.Option(help="The .parquet or .csv to write; "
                                                          "RUN/predictions/INPUT.parquet by default.")] = None,
            carry: Annotated[str | None, typer.Option(help="Further columns to copy to the result: a,b.")] = None,
            encoded: Annotated[bool, typer.Option("--encoded", help="The file holds ids and numbers, as the Feature "
                                                                    "Spec says, not raw values.")] = False,
            alone: Annotated[bool, typer.Option("--alone", help=(
                "Allow displays with one row, for a model that reads how many rows a display has."))] = False,
            allow_imports: AllowImports = None, trust_paths: TrustPaths = False, as_json: AsJson = False) -> None:
    """Write probabilities for raw rows, beside display, target item and columns of your own channels."""
    from clickwise.encoding.encoder import described
    from clickwise.verbs.predict import predict

    names = tuple(name.strip() for name in carry.split(",") if name.strip()) if carry else ()
    found = predict(run, source=source, replay=replay, out=out, overrides=overrides or [], carry=names, encoded=encoded,
                    alone=alone, allow_imports=allow_imports or (), trust_paths=trust_paths)
    for kind in ("missing", "unseen"):
        if shares := found.get(kind):
            print(f"{kind} values: {described(shares)}", file=sys.stderr)
    _print_json(found) if as_json else print(f"{found['rows']:,} rows  {found['out']}")


@app.command()
def export(run: RunFolder, out: Annotated[Path, typer.Option(help="The new folder to write.")],
           name: Annotated[str | None, typer.Option(help=(
               "Name of the model for clients. By default that of the run."))] = None,
           version: Annotated[str, typer.Option(help="Version of the model for clients.")] = "1",
           format: Annotated[Format, typer.Option(help=(
               "onnx: for ONNX Runtime; pt2: compiled, for torch; triton: a model repository."))] = Format.onnx,
           backend: Annotated[TritonBackend, typer.Option("--triton-backend", help=(
               "Which of Triton's backends runs the graph."))] =
           TritonBackend.onnxruntime,
           device: Annotated[TritonDevice, typer.Option("--triton-device", help="Where Triton runs the graph.")] =
           TritonDevice.cpu,
           rows: Annotated[TableRows, typer.Option(help="How tables are stored.")] = TableRows.fp32,
           encoding: Annotated[bool, typer.Option("--with-encoding/--without-encoding", help=(
               "With it the export takes raw rows, without it ids and numbers."))] = True,
           allow_imports: AllowImports = None, trust_paths: TrustPaths = False, as_json: AsJson = False) -> None:
    """Write a folder that scores raw rows without the run, its data or torch; its scores are compared."""
    from clickwise.export.folder import export

    found = export(run, out, format=format.value, backend=backend.value, device=device.value, name=name,
                   version=version, rows=rows.value, encoding=encoding, allow_imports=allow_imports or (),
                   trust_paths=trust_paths)
    if as_json:
        _print_json(found)
        return
    print(f"{found['out']}  model {found['name']}, {found['rows']:,} rows score as in the run: the largest difference "
          f"is {found['largest_difference']:.1e}")
    if "auc" in found:
        print("AUC not measured: the test rows are gone" if found["auc"] is None else
              f"AUC {found['auc']:.5f}, of the run {found['auc_of_the_run']:.5f}")


@app.command()
def bench(recipe: Annotated[str, typer.Argument(metavar="RECIPE", help=(
              "A recipe; a run folder, what clickwise export wrote, or the address of a server."))],
          overrides: Overrides = None,
          what: Annotated[What, typer.Option(help="What to measure.")] = What.train,
          batch_sizes: Annotated[str | None, typer.Option(help="Several sizes: 1,64,4096.")] = None,
          precisions: Annotated[str | None, typer.Option(help=(
              "For train and inference: several precisions, each with all batch sizes: fp32,bf16."))] = None,
          steps: Annotated[int, typer.Option(min=1, max=1_000_000, help="Steps that are measured.")] = 50,
          warmup: Annotated[int, typer.Option(min=0, help="Steps before them, not measured.")] = 10,
          with_loading: Annotated[bool, typer.Option("--with-loading", help=(
              "For inference: measure the loader too."))] = False,
          rates: Annotated[str | None, typer.Option(show_default="100,500,1000", help=(
              "For serve: requests per second: 100,500."))] = None,
          seconds: Annotated[float, typer.Option(min=0.1, help="For serve: how long at each rate.")] = 10.0,
          source: Annotated[Path | None, typer.Option("--input", help="For serve: raw rows to send.")] = None,
          url: Annotated[list[str] | None, typer.Option(help=(
              "For serve: address of a running server, ours or Triton. Repeatable."))] = None,
          connections: Annotated[int | None, typer.Option(min=1, max=1000, help=(
              "For serve, instead of --rates: number of connections that send a request after each answer."))] = None,
          profile: TraceFolder = None,
          trust_paths: TrustPaths = False, as_json: AsJson = False) -> None:
    """Measure throughput and latency, after a warm-up: medians and percentiles."""
    from clickwise.verbs.bench import bench

    sizes = _numbers("--batch-sizes", batch_sizes)
    if with_loading and what is not What.inference:
        raise UsageError("--with-loading", found=f"--what {what.value}", expected="--what inference",
                         do="train and data read from the loader anyway")
    if what in (What.data, What.serve):
        for option, given, do in (("--profile", profile, "operators are torch's, which none of these calls"),
                                  ("--precisions", precisions, "a loader has none, an export its own")):
            if given is not None:
                raise UsageError(option, found=f"--what {what.value}", expected="--what train or inference", do=do)
    if what is What.serve:
        from clickwise.verbs.bench_serve import RATES, bench_serve

        result = bench_serve(recipe, source=source, rates=_numbers("--rates", rates) or RATES,
                             batch_sizes=sizes or (1,), seconds=seconds, urls=url or (), connections=connections)
    else:
        result = bench(recipe, overrides or [], what=what.value, steps=steps, warmup=warmup, batch_sizes=sizes,
                       precisions=tuple(precisions.split(",")) if precisions else (), with_loading=with_loading,
                       trust_paths=trust_paths, profile=profile)
    if as_json:
        _print_json(result)
        return
    names = [name for name in result["rows"][0] if any(row[name] is not None for row in result["rows"])]
    cells = [names, *([_shown(row[name]) for name in names] for row in result["rows"])]
    widths = [max(10, *map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(f"{cell:>{width}}" for cell, width in zip(line, widths, strict=True)))
    for found in result.get("profiles", ()):
        from clickwise.verbs.profiling import shown

        print("\n" + shown(found))


def _shown(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else f"{value:,}"


def _numbers(option: str, text: str | None) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(",")) if text else ()
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise UsageError(option, found=repr(text), expected="positive integers with commas: 1,64,4096")
    return numbers


@app.command()
def serve(exports: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders that clickwise export wrote.")],
          name: Annotated[str | None, typer.Option(help=(
              "Name of the model for clients. By default that of its run."))] = None,
          host: Annotated[str, typer.Option(help=(
              "Address to listen on; 0.0.0.0 is open to other machines."))] = "127.0.0.1",
          port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8080,
          workers: Annotated[int, typer.Option(min=1, max=256, help="Number of processes that answer.")] = 1,
          queue: Annotated[int, typer.Option(min=1, help="Requests that may wait in each worker; more get 503.")] = 256,
          deadline: Annotated[float | None, typer.Option(min=0.001, metavar="MS", help=(
              "Milliseconds; a request that waits longer gets 504."))] = None,
          roots: Annotated[list[Path] | None, typer.Option("--root", metavar="DIR", show_default=False, help=(
              "Clients may load exports from this folder. Repeatable."))] = None,
          states: Annotated[str, typer.Option(metavar="STORE", help=(
              "Where counts and histories are stored that events update: sqlite:PATH, redis://HOST:PORT/NUMBER, "
              "memory. none: rows bring these values themselves."))] = "sqlite:clickwise-states.db",
          token_file: Annotated[Path | None, typer.Option(metavar="FILE", help=(
              "A file with the token that clients send: Authorization: Bearer TOKEN."))] = None,
          certificate: Annotated[Path | None, typer.Option("--tls-cert", metavar="FILE", help="PEM: https.")
                                 ] = None,
          key: Annotated[Path | None, typer.Option("--tls-key", metavar="FILE", help="Private key, PEM.")] = None,
          access_log: Annotated[bool, typer.Option(help=(
              "Write a line for every answer, without values of requests."))] = True,
          checksums: Annotated[bool, typer.Option("--checksums/--no-checksums", help=(
              "Verify every file of an export first; large tables take seconds."))] = True,
          body_limit: Annotated[int, typer.Option(min=1024, metavar="BYTES", help="The largest request.")] = 32 << 20,
          read_timeout: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help=(
              "How long a client may take to send a request."))] = 10.0) -> None:
    """Serve exports over HTTP: Open Inference Protocol, ranking, events, metrics."""
    from clickwise.verbs.serve import serve

    def ready(address: str) -> None:
        print(f"ready: {address}", flush=True)

    code = serve(exports, ready=ready, name=name, host=host, port=port, workers=workers, queue=queue, deadline=deadline,
                 roots=roots or (), states=states, token_file=token_file, certificate=certificate, key=key,
                 access_log=access_log, checksums=checksums, body_limit=body_limit, read_timeout=read_timeout)
    raise typer.Exit(code)


@app.command()
def report(runs: Annotated[list[Path], typer.Argument(metavar="RUN...", callback=_latest_runs, help=(
               "Run folders, or folders of runs, of each the latest."))],
           out: Annotated[Path | None, typer.Option(help=(
               "The page to write. By default RUN/report.html for one run, report.html for several."))] = None,
           as_json: AsJson = False) -> None:
    """Write a run's report again, or one page that compares several runs."""
    from clickwise.report import write_comparison, write_report

    if len(runs) == 1 and out is None:
        page = write_report(runs[0])
    else:
        page = write_comparison(runs, out or Path("report.html"))
    _print_json({"report": str(page)}) if as_json else print(page)


@app.command()
def log(runs: Annotated[list[Path], typer.Argument(metavar="RUN...", callback=_latest_runs, help=(
            "Run folders, finished or not; of folders of runs the latest."))],
        to: Annotated[tuple[str, str], typer.Option(metavar="SINK TARGET", show_default=False, help=(
            "tensorboard FOLDER, mlflow URI, or the dotted path of a sink of your own and what it takes."))],
        follow: Annotated[bool, typer.Option("--follow", help="Go on until all runs are finished.")] = False,
        as_json: AsJson = False) -> None:
    """Send the log of runs, metrics and settings, to TensorBoard or MLflow; given again, what is new."""
    from clickwise.verbs.log import log

    found = log(runs, *to, follow=follow)
    if as_json:
        _print_json(found)
        return
    for run, count in found["points"].items():
        print(f"{run}  {count:,} points to {found['to']} {found['target']}")


@app.command()
def doctor(folder: Annotated[Path | None, typer.Argument(metavar="DIR", show_default=False, help=(
               "With --data: where its raw files lie; by default where its recipe looks."))] = None,
           data: Annotated[str | None, typer.Option(metavar="NAME", help=(
               "Look for the raw files of criteo, outbrain, amazon_books or kuairand instead."))] = None,
           as_json: AsJson = False) -> None:
    """Show versions and devices, and what is missing; or whether the raw files of a dataset are there."""
    if data is not None:
        from clickwise.verbs.doctor_data import doctor_data, shown

        found = doctor_data(data, folder)
        _print_json(found) if as_json else print(shown(found))
        if found["missing"] or found["problems"]:
            raise typer.Exit(1)
        return
    if folder is not None:
        raise UsageError(str(folder), found="a folder without --data", expected="clickwise doctor, or with --data NAME",
                         do=f"clickwise doctor --data criteo {folder}")
    from clickwise.verbs.doctor import doctor

    found = doctor()
    if as_json:
        _print_json(found)
    else:
        for key in ("clickwise", "python", "system"):
            print(f"{key:<16} {found[key]}")
        for section in ("packages", "devices"):
            for name, value in found[section].items():
                print(f"{name:<16} {value or 'missing'}")
        print(f"{'engines':<16} {', '.join(found['engines'])}")
        print(f"{'free disk':<16} {found['free_disk_bytes'] / 1e9:.1f} GB")
        for section in ("notes", "problems"):
            print(f"{section:<16} " + (("\n" + " " * 17).join(found[section]) or "none"))
    if found["problems"]:
        raise typer.Exit(1)


@app.callback(invoke_without_command=True)
def _main(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        print(__version__)
        raise typer.Exit()


if __name__ == "__main__":
    main()
