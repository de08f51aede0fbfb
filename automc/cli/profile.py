"""`automc profile list | show | calibrate | check | import`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from automc.cli.completion import profiles
from automc.cli.output import AsJson, print_columns, print_json, wrapped

if TYPE_CHECKING:
    from automc.cost.calibration import Probes
    from automc.profiles import HardwareProfile

Name = Annotated[
    str, typer.Argument(help="Name of a profile, or a folder that holds profile.yaml.", autocompletion=profiles)
]

commands = typer.Typer(
    help="The devices automc knows.\n\nExample: automc profile calibrate --quick",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def register(app: typer.Typer) -> None:
    from automc.cli.profile_import import commands as imports

    commands.add_typer(imports, name="import")
    app.add_typer(commands, name="profile")


@commands.command("list")
def list_(as_json: AsJson = False) -> None:
    """Every profile: shipped with automc, imported, and calibrated here. What cannot be read is warned of.

    Example: automc profile list
    """
    from automc.errors import ConfigError
    from automc.profiles import load_profile, profile_folders

    found: dict[str, HardwareProfile] = {}
    for name, folder in sorted(profile_folders().items()):
        try:
            found[name] = load_profile(str(folder))
        except ConfigError as error:  # it hides no other
            reason, _, more = error.message.partition("\n")
            told = f" (all of it: automc profile show {name})" if more else ""
            typer.echo(f"warning: left out {name}: {reason}{told}\n  next: {error.next_step}", err=True)
    if as_json:
        print_json([{**profile.model_dump(mode="json"), "name": name} for name, profile in found.items()])
        return
    if not found:
        typer.echo("no profile yet; calibrate this machine with: automc profile calibrate --quick")
        return
    print_columns(
        ("profile", "device", "kind", "runtime", "precisions", "held-out error", "good for", "energy"),
        [
            (
                name,
                shortened(item.fingerprint.cpu),
                _kind(item),
                f"{_runtime(item)}, {item.threads} thread(s)",
                " ".join(item.precisions),
                _error(item),
                _use(item),
                item.energy.kind,
            )
            for name, item in found.items()
        ],
    )


@commands.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """One profile: the device, how it is measured, what calibration found and how wrong it is.

    Example: automc profile show host
    """
    from automc.profiles import load_profile, profile_folder
    from automc.report.probe_lines import int8_lines, thread_lines, width_lines

    profile = load_profile(name)
    probes, problem = _probes(name, profile)
    if as_json:
        asked = None if probes is None else probes.model_dump(mode="json")
        print_json({**profile.model_dump(mode="json"), "probes": asked, "problem": problem})
        return
    mark = profile.fingerprint
    protocol = profile.protocol
    int8 = profile.int8
    for key, value in (
        ("name", f"{profile.name} ({profile_folder(name)})"),
        ("description", profile.description),
        (
            "device",
            mark.cpu
            if profile.imported
            else f"{mark.cpu}, {mark.cores} cores, {mark.system}, {' '.join(mark.instruction_sets)}",
        ),
        (
            "runtime",
            f"{_runtime(profile)}, {'' if profile.imported else profile.execution_provider + ', '}"
            f"{profile.threads} thread(s)",
        ),
        ("memory", "not known" if profile.memory_mb is None else f"{profile.memory_mb:.0f} MB"),
        *(
            (
                ("channels", f"multiples of {profile.channel_multiple} pay"),
                (
                    "int8",
                    f"{int8.speedup:.2f} x fp32 (median) with {int8.activation_type} activations, "
                    f"{int8.weight_type} weights",
                ),
            )
            if profile.imported is None
            else ()
        ),
        ("noise", _noise(profile)),
        ("energy", f"{profile.energy.kind}: {profile.energy.detail}"),
        (
            "protocol",
            "that of the table"
            if profile.imported
            else f"{protocol.passes} passes of {protocol.runs} runs after {protocol.warmup} warm-ups, "
            f"percentile {protocol.percentile:g}",
        ),
        ("calibrated", _calibrated(profile)),
        ("good for", ": ".join(part for part in profile.good_for() if part)),
    ):
        typer.echo(f"{key + ':':13} {value}")
    if profile.imported is not None:
        table = profile.imported
        for key, value in (
            ("kind", table.kind),
            ("source", table.source),
            ("licence", table.licence),
            *(("cannot" if at == 0 else "", text) for at, text in enumerate(table.cannot)),
        ):
            typer.echo(f"{key + ':' if key else '':13} {value}")
    if profile.held_out:
        left_out = profile.held_out[0].left_out
        named = left_out != "one network"  # too many names for a column
        header = ("precision", "networks", "within 5 %", "10 %", "15 %", "MAPE", "rank corr.", "in interval")
        typer.echo("")
        typer.echo(_LEFT_OUT[left_out])
        print_columns(
            (*header, *(("families",) if named else ())),
            [
                (
                    item.precision, str(item.networks),
                    f"{item.within_5_percent:.0%}", f"{item.within_10_percent:.0%}",
                    f"{item.within_15_percent:.0%}", f"{item.mape_percent:.1f} %", f"{item.rank_correlation:.3f}",
                    "-" if item.interval_coverage is None else f"{item.interval_coverage:.0%}",
                    *((", ".join(item.families),) if named else ()),
                )
                for item in profile.held_out
            ],
        )  # fmt: skip
        for item in () if named else profile.held_out:
            typer.echo(wrapped(f"networks of {item.precision}: {', '.join(item.families)}"))
    if problem is not None:
        typer.echo(f"\nit cannot predict: {problem}")
    if probes is not None:
        for lines in (
            width_lines(probes.widths, profile.channel_multiple),
            int8_lines(probes.int8),
            thread_lines(probes.threads, profile.threads),
        ):
            if not lines:
                continue
            typer.echo("\n".join(("", *lines)))


def _probes(name: str, profile: HardwareProfile) -> tuple[Probes | None, str | None]:
    """What calibration asked the device directly, where it is kept; and what is wrong with the calibration, if so."""
    from automc.cost.calibration import load_calibration
    from automc.errors import StaleCalibrationError
    from automc.profiles import profile_folder

    try:
        return load_calibration(profile, profile_folder(name)).probes, None
    except StaleCalibrationError as error:  # the profile can be shown all the same
        return None, str(error)


@commands.command()
def calibrate(
    name: Annotated[str, typer.Argument(help="What to call the profile of this machine.")] = "host",
    quick: Annotated[bool, typer.Option("--quick", help="One minute instead of five, wider intervals.")] = False,
    threads: Annotated[int, typer.Option(min=1, help="Threads of one operator.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the random networks.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Measure this machine, fit its costs, and print how wrong they are.

    The error is that on whole networks of families the fit never saw. Close what else runs here first.

    Example: automc profile calibrate --quick
    """
    from automc.cli.progress import ProgressDisplay
    from automc.errors import RunInterrupted
    from automc.measure.calibrate import calibrate_host
    from automc.search.progress import Progress

    with ProgressDisplay() as display:

        def tell(stage: str, share: float) -> None:
            display(Progress("calibrating", f"{stage}: {share:.0%}"))

        try:
            profile = calibrate_host(name, mode="quick" if quick else "full", threads=threads, seed=seed, progress=tell)
        except KeyboardInterrupt:
            raise RunInterrupted(
                "interrupted; what was timed is kept for an hour", next_step="the same command again goes on from it"
            ) from None
    if as_json:
        print_json(profile.model_dump(mode="json"))
        return
    show(name)
    use, why = profile.good_for()
    if use == "rank only":
        typer.echo(
            f"\nwarning: this calibration ranks networks and no more ({why}): close what else runs here, then "
            "calibrate again",
            err=True,
        )


@commands.command()
def check(name: Name = "host", as_json: AsJson = False) -> None:
    """Whether a profile still describes this machine; exit 2 where it does not.

    Example: automc profile check host
    """
    from automc.cost.calibration import load_calibration
    from automc.measure.fingerprint import check_fingerprint
    from automc.profiles import load_profile, profile_folder

    profile = load_profile(name)
    check_fingerprint(profile)
    load_calibration(profile, profile_folder(name))
    if as_json:
        print_json({"profile": profile.name, "fits": True, "calibrated_unix_s": profile.calibrated_unix_s})
        return
    typer.echo(f"{profile.name}: calibrated on this machine and runtime ({_calibrated(profile)})")


_LEFT_OUT = {
    "unseen families": "error on whole networks of families the calibration never saw:",
    "one network": "error on each network when the fit knows all others:",
    "one space": "error on networks of each search space when the fit knows those of the others alone:",
}
_WIDEST = 48


def shortened(device: str) -> str:
    """The device's name within _WIDEST characters."""
    return device if len(device) <= _WIDEST else device[: _WIDEST - 3].rstrip(" ,(") + "..."


def _noise(profile: HardwareProfile) -> str:
    if profile.imported is not None and profile.noise_floor_percent == profile.noise_floor_ms == 0:
        return "not known"  # the table has no spreads
    return f"{profile.noise_floor_percent:.1f} %, {profile.noise_floor_ms:.4f} ms"


def _kind(profile: HardwareProfile) -> str:
    return profile.imported.kind if profile.imported else "this automc's own"


def _use(profile: HardwareProfile) -> str:
    return profile.good_for()[0]


def _runtime(profile: HardwareProfile) -> str:
    return f"{profile.fingerprint.runtime} {profile.fingerprint.runtime_version}"


def _calibrated(profile: HardwareProfile) -> str:
    moment = datetime.fromtimestamp(profile.calibrated_unix_s, tz=UTC)
    return f"{profile.calibration}, {moment:%Y-%m-%d %H:%M} UTC"


def _error(profile: HardwareProfile) -> str:
    shown = [f"{item.precision} {item.mape_percent:.1f} % (n={item.networks})" for item in profile.held_out]
    return ", ".join(shown) or "not held out"
