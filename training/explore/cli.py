"""motorvae explore: its verbs, and how each runs, from the command line and from Python."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich.console import Console

from ...runtime.core.command import (
    Command,
    CommandGroup,
    PlainConsole,
    print_sentence,
    stderr_console,
)
from ...runtime.core.errors import needed_for
from ...runtime.core.lifecycle import loading
from ...runtime.core.system.locks import output_locked
from .factors.options import FactorsOptions
from .live.options import LiveOptions
from .options import (
    ArithmeticOptions,
    AverageOptions,
    HistoryOptions,
    InterpolateOptions,
    OutputOptions,
    ReconstructionsOptions,
    SamplesOptions,
    TraversalsOptions,
)
from .results import Result, check_output
from .space.options import MapOptions, NeighboursOptions

Step = Callable[[str], object]
"""Takes what is being done next, for a line of progress."""


@dataclass(frozen=True)
class Verb:
    """One of the verbs."""

    options: type[OutputOptions]
    # Where its function is: (options, step) to a Result. Nothing of it is loaded before it is run.
    function: str
    what: str  # a line of help, at most 58 characters
    positional: Sequence[str] = ()  # as of `Command`


VERBS = {
    "reconstructions": Verb(
        ReconstructionsOptions,
        ".verbs.reconstructions:reconstructions",
        "held-out images over their reconstructions, with errors",
        ("--model",),
    ),
    "samples": Verb(
        SamplesOptions,
        ".verbs.samples:samples",
        "samples of the prior beside samples of a Gaussian mixture",
        ("--model",),
    ),
    "traversals": Verb(
        TraversalsOptions,
        ".verbs.traversals:traversals",
        "what each latent dimension does, ranked by how much",
    ),
    "interpolate": Verb(
        InterpolateOptions,
        ".verbs.blends:interpolate",
        "the way from one image to another through latent space",
    ),
    "arithmetic": Verb(
        ArithmeticOptions,
        ".verbs.blends:arithmetic",
        "sums and differences of latents, decoded: A - B + C",
    ),
    "average": Verb(
        AverageOptions,
        ".verbs.blends:average",
        "the mean latent of images beside their mean picture",
    ),
    "history": Verb(
        HistoryOptions,
        ".verbs.history:history",
        "a run's images through its epochs, or several runs compared",
    ),
    "factors": Verb(
        FactorsOptions,
        ".factors.factors_verb:factors",
        "how well latents hold known factors: probes, MIG, DCI",
        ("--model",),
    ),
    "neighbours": Verb(
        NeighboursOptions,
        ".space.neighbours:neighbours",
        "the images that are nearest to one in latent space",
        ("--image",),
    ),
    "map": Verb(
        MapOptions,
        ".space.map_verb:latent_map",
        "the latent space in two dimensions, and a page of it",
        ("--model",),
    ),
    "live": Verb(
        LiveOptions,
        ".live.live_verb:live",
        "what a stream sees in the latent space, in the Rerun view",
        ("--camera",),
    ),
}


def explored(name: str, options: OutputOptions, step: Step = lambda _: None) -> Result:
    """Run a verb, and write its files; nothing is printed.

    Raises:
        MotorVAEError: An option is out of range, the model or an image does not open, the verb
            does not fit the model, a package is missing, or nothing can be written.
    """
    options.check()
    with needed_for(f"motorvae explore {name}", extra="explore"), loading():
        function: Any = pkgutil.resolve_name(f"{__package__}{VERBS[name].function}")
    with output_locked(options.output):
        check_output(options.output, name)  # before minutes are spent on it
        result: Result = function(options, step)
        return result.saved(options.output, options)


def _run(name: str, options: Any, *_: object) -> None:
    console = stderr_console()
    with console.status("loading") as status:
        result = explored(name, options, status.update)
    show(result, PlainConsole(soft_wrap=True))


def show(result: Result, console: Console) -> None:
    """Print what matters of a result, and which files there are."""
    for line in result.lines:
        print_sentence(console, line)
    first, *others = map(str, result.files)
    more = f" and {len(others)} more" if len(others) > 3 else "".join(f", {one}" for one in others)
    console.print(f"wrote {first}{more}")


main = CommandGroup(
    "motorvae-explore",
    "Show what a model has learned, as pictures and numbers, of a run or a bundle.",
    {
        name: Command(verb.options, partial(_run, name), verb.what, positional=verb.positional)
        for name, verb in VERBS.items()
    },
    hints={
        "--bundle": "a run or a bundle is named with --model",
        "--checkpoint": "a run or a bundle is named with --model",
        "--data": "images are named with --images",
    },
)
