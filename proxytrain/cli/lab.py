"""What is looked at before a sweep: does the parametrization carry over?"""

from __future__ import annotations

import argparse
from pathlib import Path

from proxytrain.cli import ask
from proxytrain.cli.verb import verb
from proxytrain.errors import RequestError


@verb("do activations keep their scale in width and depth? slopes after a few updates, a picture; exit code 1 if not")
def coordcheck(options: argparse.Namespace) -> int:
    from proxytrain.report.coordcheck import draw_scans
    from proxytrain.train.coordcheck import FLAT_SLOPE, Scan, scan

    asked, console = ask.request(options, "coordcheck")
    config = asked.config
    if not config.coordcheck.widths and not config.coordcheck.depths:
        raise RequestError("coordcheck.widths=[], coordcheck.depths=[]: nothing to look at")
    scans: list[Scan] = []
    for axis, sizes in (("width", config.coordcheck.widths), ("depth", config.coordcheck.depths)):
        for step in scan(config, asked.corpus, axis) if sizes else ():
            if isinstance(step, Scan):
                scans.append(step)
            else:
                console.say(f"{config.parametrization.name}: {axis} {step}")
    for done in scans:
        for module, slope in done.judged.items():
            print(f"  {module:28} mean |x| ~ {done.axis}^{slope:+.2f}{'' if done.fits(slope) else '  NOT FLAT'}")
        verdict = "flat" if done.flat else "NOT flat"
        print(f"{config.parametrization.name} in {done.axis}: {verdict} (slopes below {FLAT_SLOPE})")
    files = draw_scans(scans, Path(config.file or f"coordcheck_{config.parametrization.name}"))
    print(f"pictures: {', '.join(map(str, files))}")
    return int(not all(s.flat for s in scans))
