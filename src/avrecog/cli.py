"""The command `avrecog`: the arguments of its subcommands and their defaults.

Nothing heavy is imported before a command is chosen, so that `avrecog --help` comes at once.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

from avrecog.runtime.entry_point import entry_point

KINDS = ["logits", "probabilities"]
ENGINES = ["torch", "torch-compiled", "onnxruntime"]
CHECKPOINTS = (".pth", ".pt", ".ckpt", ".safetensors")


@entry_point
def main() -> None:
    """Run the command of sys.argv."""
    args = _parser().parse_args()
    args.run(args)


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="avrecog", description="Recognise what happens in a clip.", allow_abbrev=False
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for add in (
        _add_data,
        _add_recipe,
        _add_predict,
        _add_export,
        _add_fuse,
        _add_convert,
        _add_sync,
        _add_gather,
        _add_compare,
        _add_sweep,
        _add_doctor,
    ):
        add(commands)
    return parser


def _add_data(commands: Commands) -> None:
    data = commands.add_parser("data", help="look at your clips and write them into params.yaml, whatever their path")
    data.add_argument(
        "path",
        type=Path,
        metavar="PATH",
        help="a CSV (path,label), a folder of class folders, or one of Kinetics' lists (begins with a dash: ./-PATH)",
    )
    data.add_argument(
        "--media",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="of Kinetics' lists: where the media are; a second one where those of val and test are elsewhere",
    )
    data.set_defaults(run=_data)


def _add_recipe(commands: Commands) -> None:
    recipe = commands.add_parser("recipe", help="write a recipe's values into params.yaml and show the difference")
    recipe.add_argument("name", help="a file of recipes/, without .yaml; `default` is the demo, params.yaml as shipped")
    recipe.add_argument("--annotation", type=Path, help="where your copy of the data set's annotation is")
    recipe.set_defaults(run=_recipe)


def _add_predict(commands: Commands) -> None:
    predict = commands.add_parser("predict", help="print the top classes of media files")
    predict.add_argument("files", nargs="+", type=Path, help="any media files")
    predict.add_argument(
        "--checkpoint",
        action="append",
        type=Path,
        help="a trained model; repeat for several, which are fused (default: those that were tested last)",
    )
    predict.add_argument(
        "--coefficients",
        nargs="+",
        type=float,
        help="one weight a model (default: as stage fuse does)",
    )
    predict.add_argument("--top", type=int, default=5, help="classes to print for each file (default: 5)")
    predict.add_argument("--engine", choices=ENGINES, default="torch", help="what runs the networks (default: torch)")
    predict.set_defaults(run=_predict)


def _add_export(commands: Commands) -> None:
    export = commands.add_parser(
        "export", help="write a trained model as an ONNX file, its front end and labels inside"
    )
    export.add_argument("checkpoint", type=Path, metavar="CHECKPOINT", help="a trained model")
    export.add_argument("target", type=Path, metavar="TARGET.onnx", help="the file to write")
    export.set_defaults(run=_export)


def _add_fuse(commands: Commands) -> None:
    fuse = commands.add_parser("fuse", help="fuse score files: by given coefficients, as before, or as is best on val")
    fuse.add_argument(
        "--scores", nargs="+", type=Path, required=True, help="score files (.npz, or MMAction2's) of one split"
    )
    how = fuse.add_mutually_exclusive_group()
    how.add_argument("--coefficients", nargs="+", type=float, help="one weight a file")
    how.add_argument("--fusion", type=Path, help="a fusion that was saved: results/fuse/fusion.npz, or one of --save")
    fuse.add_argument("--save", type=Path, help="file (.npz) to keep the fusion in")
    _add_result_file_options(fuse)
    fuse.add_argument(
        "--kind", nargs="+", choices=KINDS, help="of their scores, one for all or each (default: as seen)"
    )
    fuse.add_argument("--rules", choices=["mmaction2"], help="print what MMAction2's report_accuracy.py would, no more")
    fuse.add_argument("--apply-softmax", action="store_true", help="with --rules: its option of that name")
    fuse.set_defaults(run=_fuse)


def _add_convert(commands: Commands) -> None:
    convert = commands.add_parser(
        "convert", help="turn files of MMAction2 and SlowFast into ours, or ours into MMAction2's"
    )
    convert.add_argument(
        "source", type=Path, metavar="SOURCE", help=".npz, .pkl, .json, .yaml: scores; or a checkpoint"
    )
    convert.add_argument(
        "target", type=Path, metavar="TARGET", help="the file to write; its ending says what it will be"
    )
    _add_result_file_options(convert)
    convert.add_argument("--kind", choices=KINDS, help="of the scores (default: as seen in them)")
    convert.add_argument("--model", help="name for the model (default: the file's)")
    convert.add_argument("--form", choices=["0.x", "1.x"], help="MMAction2's version that a .pkl is for (default: 0.x)")
    convert.add_argument(
        "--sampling",
        choices=["time", "mmaction2-0.x", "mmaction2-1.x"],
        help="of a network on log-mel: where stage test crops (default: time)",
    )
    convert.add_argument("--frames", type=int, help="of a SlowFast: that Fast sees (default: as the file says)")
    convert.add_argument(
        "--alpha", type=int, help="of a SlowFast: Slow sees every alpha-th of them (default: likewise)"
    )
    convert.set_defaults(run=_convert)


def _add_sync(commands: Commands) -> None:
    sync = commands.add_parser("sync", help="say by how much the sound of a file is late, and whether it fits at all")
    sync.add_argument("files", type=Path, nargs="+", metavar="FILE", help="with sound and picture")
    sync.add_argument(
        "--checkpoint",
        type=Path,
        default=Path("selfsupervised/models/sync/best.ckpt"),
        help="of architecture avsync (default: %(default)s)",
    )
    sync.add_argument("--max-offset", type=float, default=0.5, metavar="S", help="seconds (default: %(default)s)")
    sync.set_defaults(run=_sync)


def _add_gather(commands: Commands) -> None:
    gather = commands.add_parser("gather", help="gather the rows of folds and seeds: means, spread, intervals")
    gather.add_argument("--annotation", metavar="TEXT", help="only rows whose data.annotation holds this text")
    gather.set_defaults(run=_gather)


def _add_compare(commands: Commands) -> None:
    compare = commands.add_parser("compare", help="say whether two results differ by more than luck, and what changed")
    sides = "score file (.npz), predictions (.csv), MLflow run id or its beginning, or name of a DVC experiment"
    compare.add_argument("a", metavar="A", help=sides)
    compare.add_argument("b", metavar="B", help="the same")
    compare.add_argument("--model", help="whose row of a run (default: the fusion's, else the only one)")
    compare.set_defaults(run=_compare)


def _add_sweep(commands: Commands) -> None:
    sweep = commands.add_parser(
        "sweep", help="search parameters of params.yaml with Optuna, each trial a dvc experiment"
    )
    sweep.add_argument("file", type=Path, help="what to vary and what for; see sweeps/lr.yaml")
    sweep.add_argument("--workers", type=int, default=1, help="trials at once (default: 1)")
    sweep.add_argument("--apply", action="store_true", help="write the best trial's values into params.yaml instead")
    sweep.set_defaults(run=_sweep)


def _add_doctor(commands: Commands) -> None:
    doctor = commands.add_parser("doctor", help="say versions, devices, and what is missing")
    doctor.set_defaults(run=_doctor)


def _add_result_file_options(command: argparse.ArgumentParser) -> None:
    """Add what MMAction2's result files don't say themselves."""
    command.add_argument("--datalist", type=Path, help="list of MMAction2's clips: `path label` or `path frames label`")
    command.add_argument("--labels", type=Path, help="class names, one a line (default: the numbers from 0)")
    command.add_argument("--split", choices=["train", "val", "test"], help="what its clips are of (default: test)")


def _data(args: argparse.Namespace) -> None:
    from avrecog.commands.data import use_data

    _say(use_data(args.path, args.media))


def _recipe(args: argparse.Namespace) -> None:
    from avrecog.commands.recipe import apply_recipe

    _say(apply_recipe(args.name, args.annotation))


def _predict(args: argparse.Namespace) -> None:
    from avrecog.commands.predict import predict_files

    for text in predict_files(args.files, args.checkpoint, args.coefficients, args.top, args.engine):
        _say(text)


def _export(args: argparse.Namespace) -> None:
    from avrecog.commands.export import export_model

    _say(export_model(args.checkpoint, args.target))


def _fuse(args: argparse.Namespace) -> None:
    from avrecog.commands.fuse import fuse_as_mmaction2, fuse_files
    from avrecog.config import load_params
    from avrecog.errors import ConfigError
    from avrecog.fusion.settings import FuseConfig
    from avrecog.interop.mmaction2_results import ResultFileOptions

    if args.rules:
        if args.fusion or args.save or args.labels or args.kind or args.split:
            raise ConfigError("--rules mmaction2 knows --scores, --datalist, --coefficients and --apply-softmax alone")
        _say(fuse_as_mmaction2(args.scores, args.datalist, args.coefficients, args.apply_softmax))
        return
    if args.apply_softmax:
        raise ConfigError("--apply-softmax is one of MMAction2's rules: add --rules mmaction2, or drop it")
    told = ResultFileOptions(args.datalist, args.labels, split=args.split)
    config = load_params(fuse=FuseConfig).fuse
    _say(
        fuse_files(
            args.scores,
            config,
            args.coefficients,
            fusion_file=args.fusion,
            save=args.save,
            told=told,
            kinds=args.kind or (),
        )
    )


def _convert(args: argparse.Namespace) -> None:
    from avrecog.errors import ConfigError

    if args.source.suffix in CHECKPOINTS or args.target.suffix in CHECKPOINTS:
        if args.datalist or args.kind or args.split or args.model or args.form:
            raise ConfigError(
                f"{args.source}: checkpoints take --labels, --sampling, --frames and --alpha alone; drop the others"
            )
        from avrecog.commands.convert import convert_checkpoint

        _say(
            convert_checkpoint(
                args.source,
                args.target,
                labels=args.labels,
                sampling=args.sampling,
                frames=args.frames,
                alpha=args.alpha,
            )
        )
        return
    if args.sampling or args.frames or args.alpha:
        raise ConfigError(f"{args.source}: --sampling, --frames and --alpha are of checkpoints, and these are scores")
    from avrecog.interop.mmaction2_results import ResultFileOptions
    from avrecog.interop.score_files import convert_scores

    told = ResultFileOptions(args.datalist, args.labels, args.kind, args.split)
    _say(convert_scores(args.source, args.target, told, args.model, args.form))


def _sync(args: argparse.Namespace) -> None:
    from avrecog.commands.sync import sync_files
    from avrecog.errors import ConfigError

    if not 0.2 <= args.max_offset <= 10:
        raise ConfigError(f"--max-offset: expected 0.2 to 10 seconds, got {args.max_offset:g}")
    _say(sync_files(args.files, args.checkpoint, args.max_offset))


def _gather(args: argparse.Namespace) -> None:
    from avrecog.commands.gather import gather

    _say(gather(args.annotation))


def _compare(args: argparse.Namespace) -> None:
    from avrecog.commands.compare import compare

    _say(compare(args.a, args.b, args.model))


def _sweep(args: argparse.Namespace) -> None:
    from avrecog.experiments.sweep.loop import apply_best, run_sweep

    _say(apply_best(args.file) if args.apply else run_sweep(args.file, args.workers))


def _doctor(args: argparse.Namespace) -> None:
    from avrecog.commands.doctor import examine

    lines, healthy = examine()
    _say("\n".join(lines))
    if not healthy:
        sys.exit(1)


def _say(text: str | Sequence[str]) -> None:
    sys.stdout.write(f"{text}\n")


if __name__ == "__main__":
    main()
