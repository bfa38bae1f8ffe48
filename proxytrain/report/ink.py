"""How figures look: colours, canvas, ticks, labels; from a matplotlib figure to a small inline SVG, and to files.

Figures are drawn in the colours of the light page. In the SVG each colour becomes `var(--name, colour)`, so the page
recolours them in the dark; text inherits the page's font. What `hover` names carries its name, and the SVG says what
its axes are, so that the page's script can read values off the drawing. Nothing here knows what is drawn.
"""

from __future__ import annotations

import html
import io
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from proxytrain.arrays import Array

# name -> (light, dark); widths and schedules are added by `scale` and `HUES`
COLOURS = {
    "ink": ("#1c2027", "#e6e8ec"),
    "muted": ("#667080", "#98a2b3"),
    "grid": ("#e4e7ec", "#2c323c"),
    "accent": ("#bf3f14", "#ff8f66"),
    "miss": ("#a8327d", "#f08ac6"),
    "page": ("#ffffff", "#14171c"),
}
HUES = [
    ("#2b6cb0", "#6fb1f2"),
    ("#a65a12", "#f0a35c"),
    ("#2a7d51", "#68cf97"),
    ("#8f4aa8", "#cf95e6"),
    ("#86680a", "#dcbc55"),
    ("#a83f5f", "#f08cab"),
]
SIZES = {"wide": (880.0, 400.0), "half": (420.0, 300.0), "phone": (380.0, 320.0)}  # CSS pixels
TEXT = 12.0
SMALL = 11.0
HIGHEST = 20.0  # nats a token; more is no loss of a language model
CONTRAST = 4.5  # of text on the page: WCAG 2.2, AA
DOTS_PER_INCH = 288  # of PNG files: four a CSS pixel


@dataclass(frozen=True)
class Palette:
    """One colour for each model size of the page, from dark to bright by size."""

    light: list[str]
    dark: list[str]

    def css(self) -> tuple[str, str]:
        """Custom properties of both themes."""
        sides = []
        for side in (0, 1):
            named = {name: pair[side] for name, pair in COLOURS.items()}
            named |= {f"hue{i}": pair[side] for i, pair in enumerate(HUES)}
            named |= {f"size{i}": c for i, c in enumerate((self.light, self.dark)[side])}
            sides.append("".join(f"--{k}:{v};" for k, v in named.items()))
        return sides[0], sides[1]

    def names(self) -> dict[str, str]:
        """Light colour -> custom property."""
        out = {pair[0]: name for name, pair in COLOURS.items()}
        out |= {pair[0]: f"hue{i}" for i, pair in enumerate(HUES)}
        return out | {c: f"size{i}" for i, c in enumerate(self.light)}


def palette(count: int) -> Palette:
    """Viridis, each colour made as dark, or as bright, as text needs on the light and on the dark page."""
    from matplotlib import colormaps

    at = np.linspace(0, 1, count) if count > 1 else np.array([0.45])
    light, dark = COLOURS["page"]
    return Palette(
        [_readable(np.array(colormaps["viridis"](0.05 + 0.75 * x)[:3]), light) for x in at],
        [_readable(np.array(colormaps["viridis"](0.30 + 0.65 * x)[:3]), dark) for x in at],
    )


def _readable(colour: Array, page: str) -> str:
    """The colour, moved away from the page's until text in it can be read."""
    from matplotlib.colors import to_hex

    away = np.zeros(3) if page == COLOURS["page"][0] else np.ones(3)
    for share in np.linspace(0, 1, 101):
        mixed = to_hex((1 - share) * colour + share * away)
        if contrast(mixed, page) >= CONTRAST:
            return mixed
    raise AssertionError


def contrast(a: str, b: str) -> float:
    """Contrast of two colours, from 1 to 21 (WCAG 2.2).

    Examples
    --------
    >>> contrast("#ffffff", "#000000")
    21.0
    """

    def luminance(colour: str) -> float:
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    low, high = sorted((luminance(a), luminance(b)))
    return round((high + 0.05) / (low + 0.05), 3)


@contextmanager
def canvas(size: str, panels: int = 1, **subplots: Any) -> Iterator[tuple[Any, list[Any]]]:
    """A figure of one of the sizes with its axes, styled; leave the block to keep the settings of others untouched."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    ink, muted, grid = (COLOURS[n][0] for n in ("ink", "muted", "grid"))
    settings = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "font.size": TEXT,
        "text.color": ink,
        "axes.edgecolor": muted,
        "axes.labelcolor": muted,
        "axes.labelsize": SMALL,
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "axes.facecolor": "none",
        "axes.unicode_minus": True,
        "figure.facecolor": "none",
        "grid.color": grid,
        "grid.linewidth": 0.8,
        "xtick.color": muted,
        "ytick.color": muted,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "xtick.major.size": 0,
        "ytick.major.size": 0,
        "xtick.minor.size": 0,
        "ytick.minor.size": 0,
        "xtick.major.pad": 6,
        "ytick.major.pad": 5,
        "lines.solid_capstyle": "round",
        "path.simplify": True,
        "path.simplify_threshold": 0.2,
    }
    with matplotlib.rc_context(settings):
        width, height = SIZES[size]
        figure = Figure(figsize=(width / 72, height / 72))
        FigureCanvasSVG(figure)
        axes = figure.subplots(1, panels, squeeze=False, **subplots)[0]
        yield figure, list(axes)


def svg(figure: Any, key: str, title: str, colours: dict[str, str]) -> str:
    """The figure as inline SVG: ids under `key`, colours as custom properties, `title` as its text alternative."""
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": key}):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.S)
    text = re.sub(r"<!--.*?-->\s*", "", text, flags=re.S)
    text = re.sub(r"font: [^;\"]*?([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = text.replace("xlink:href", "href").replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
    text = re.sub(r'(?:; )?stroke-linecap: (?:butt|square)(?=[;"])', "", text)
    text = re.sub(r"(stroke|fill): #000000; \1-opacity: 0(?=[;\"])", r"\1: none", text)
    referred = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text))
    kept = {a or b for a, b in referred}
    names = getattr(figure, "hover", [])
    text = re.sub(r' id="hover-(\d+)"', lambda m: f' data-hover="{html.escape(names[int(m[1])])}"', text)
    text = re.sub(r' id="([^"]+)"', lambda m: f' id="{key}-{m[1]}"' if m[1] in kept else "", text)
    text = re.sub(r'href="#', f'href="#{key}-', text).replace("url(#", f"url(#{key}-")
    text = re.sub(
        r"#[0-9a-f]{6}(?=[;\"])", lambda m: f"var(--{colours[m[0]]},{m[0]})" if m[0] in colours else m[0], text
    )
    text = re.sub(r"(?<=[\d.])\s*\n\s*(?=[LMCQz])", "", text)  # path data: one line
    text = re.sub(r' (?:d|x|y|transform)="[^"]*"', lambda m: re.sub(r"(\.\d{2})\d+", r"\1", m[0]), text)
    text = re.sub(r">\s+<", "><", text)
    head = re.match(r"<svg[^>]*>", text)
    assert head
    box = re.search(r'viewBox="[^"]+"', head[0])
    assert box
    axes = f' data-axes="{html.escape(json.dumps(_axes(figure)))}"' if names else ""
    opening = f'<svg xmlns="http://www.w3.org/2000/svg" {box[0]} role="img" aria-label="{html.escape(title)}"{axes}>'
    return opening + text[head.end() :].strip()


def hover(artist: Any, *names: str) -> None:
    """Say what a line is, or what each of its dots is: the page shows it where a reader points."""
    figure = artist.get_figure()
    known = figure.__dict__.setdefault("hover", [])
    artist.set_gid(f"hover-{len(known)}")
    known.append("\n".join(n.replace("\n", " ") for n in names))


def top_label(ax: Any, text: str) -> None:
    """What the vertical axis shows, written upright above it."""
    ax.shows = text
    ax.annotate(
        text,
        (0, 1),
        xycoords="axes fraction",
        xytext=(0, 6),
        textcoords="offset points",
        color=COLOURS["muted"][0],
        fontsize=SMALL,
        va="bottom",
    )


def _axes(figure: Any) -> list[dict[str, Any]]:
    """Of each panel: where it lies in the SVG, and limits, kind and name of its axes."""
    out = []
    scale, height = 72.0 / figure.dpi, 72.0 * figure.get_size_inches()[1]
    for ax in figure.axes:
        box = ax.get_window_extent()
        sides = [box.x0 * scale, height - box.y1 * scale, box.x1 * scale, height - box.y0 * scale]
        x, y = (
            {"from": float(lim[0]), "to": float(lim[1]), "log": kind == "log", "name": name}
            for lim, kind, name in (
                (ax.get_xlim(), ax.get_xscale(), ax.get_xlabel()),
                (ax.get_ylim(), ax.get_yscale(), getattr(ax, "shows", "")),
            )
        )
        out.append({"box": [round(v, 2) for v in sides], "x": x, "y": y})
    return out


def files(figure: Any) -> dict[str, bytes]:
    """The figure on white as files for a paper, by suffix: SVG with its letters as outlines, and PNG."""
    import matplotlib

    page, out = COLOURS["page"][0], {}
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "figure"}):
        for suffix, metadata in ((".svg", {"Date": None, "Creator": None}), (".png", {"Software": None})):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=suffix[1:], facecolor=page, dpi=DOTS_PER_INCH, metadata=metadata)
            out[suffix] = buffer.getvalue()
    return out


def log_axis(axis: Any, low: float, high: float, form: Any, most: int = 6, at: Sequence[float] = ()) -> None:
    """A log axis from `low` to `high` with a few plain ticks, labelled by `form`; those of `at` come first."""
    from matplotlib.ticker import FixedFormatter, FixedLocator, NullLocator

    if not high > low * 1.001:
        low, high = low * 0.9, high * 1.1
    ticks = log_ticks(low, high, most)
    if at:
        apart = 0.6 * np.log(high / low) / most
        own: list[float] = []
        for tick in sorted(set(at), reverse=True):
            if all(abs(np.log(tick / t)) > apart for t in own):
                own.append(float(tick))
        outside = [t for t in ticks if t < min(own) or t > max(own)]
        ticks = sorted(own + [t for t in outside if all(abs(np.log(t / o)) > apart for o in own)])
    ticks = list({form(t): t for t in ticks}.values())  # no label twice
    getattr(axis.axes, f"set_{axis.axis_name}scale")("log")
    getattr(axis.axes, f"set_{axis.axis_name}lim")(low, high)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([form(t) for t in ticks]))
    axis.set_minor_locator(NullLocator())


def sane(losses: Iterable[float]) -> list[float]:
    """The losses that an axis should hold: a run that went astray must not hide the others.

    Examples
    --------
    >>> sane([1.5, 2.0, 4e21])
    [1.5, 2.0]
    """
    losses = [v for v in losses if np.isfinite(v)]
    return [v for v in losses if v < HIGHEST] or losses or [1.0]


def log_ticks(low: float, high: float, most: int) -> list[float]:
    """Round values between two limits, as even in the logarithm as round values are.

    Examples
    --------
    >>> log_ticks(0.9e5, 5e6, 6)
    [100000.0, 200000.0, 500000.0, 1000000.0, 2000000.0, 5000000.0]
    """
    from matplotlib.ticker import MaxNLocator

    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    powers = [t for t in (float(f"1e{d}") for d in decades) if low <= t <= high * 1.0001]
    best: list[float] = powers[:: max(1, int(np.ceil(len(powers) / most)))]  # of many decades, every second or third
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        ticks = [float(f"{s}e{d}") for d in decades for s in steps if low <= float(f"{s}e{d}") <= high * 1.0001]
        if len(ticks) <= most and len(ticks) > len(best):
            best = ticks
    if len(best) >= max(3, most - 2):
        return best
    linear = MaxNLocator(nbins=most, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    inside = [float(t) for t in linear if low <= t <= high]
    return inside if high / low < 4 and len(inside) > len(best) else best or inside


def end_labels(ax: Any, labels: Sequence[tuple[float, str, str]], *, dx: float = 6.0, gap: float = 13.0) -> None:
    """Direct labels at the right edge, at heights y in data units, pushed apart where they would touch.

    Parameters
    ----------
    labels : (y, text, colour)
    """
    if not labels:
        return
    box = ax.get_window_extent()
    scale = 72.0 / ax.figure.dpi
    room = int(box.height * scale // gap)
    labels = sorted(labels)
    if len(labels) > room:
        keep = np.unique(np.linspace(0, len(labels) - 1, max(2, room)).astype(int))
        labels = [labels[i] for i in keep]
    y = np.array([(ax.transData.transform((1, v))[1] - box.y0) * scale for v, _, _ in labels])
    placed = spread(y, gap, 0.0, box.height * scale)
    for at, (_, text, colour) in zip(placed, labels):
        ax.annotate(
            text,
            (1, 0),
            xycoords="axes fraction",
            xytext=(dx, at),
            textcoords="offset points",
            color=colour,
            fontsize=SMALL,
            va="center",
            annotation_clip=False,
        )


def spread(y: Array, gap: float, low: float, high: float) -> Array:
    """Positions nearest to `y` (ascending) that are `gap` apart and lie between `low` and `high`.

    Examples
    --------
    >>> spread(np.array([0.0, 1.0, 50.0]), 10.0, 0.0, 100.0).tolist()
    [0.0, 10.0, 50.0]
    """
    steps = gap * np.arange(len(y))
    blocks: list[list[float]] = []  # isotonic regression of y - steps: mean, count
    for value in y - steps:
        blocks.append([float(value), 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            b = blocks.pop()
            a = blocks.pop()
            blocks.append([(a[0] * a[1] + b[0] * b[1]) / (a[1] + b[1]), a[1] + b[1]])
    flat = np.concatenate([np.full(int(n), m) for m, n in blocks])
    return np.clip(flat, low, max(low, high - steps[-1])) + steps


def count(value: float) -> str:
    """0.5M, 20k, 3.2B.

    Examples
    --------
    >>> [count(v) for v in (500_000, 4e6, 20_000, 1.5e9, 999_424, 250)]
    ['0.5M', '4M', '20k', '1.5B', '1M', '250']
    """
    for scale, letter, least in ((1e12, "T", 1e12), (1e9, "B", 1e9), (1e6, "M", 4.9e5), (1e3, "k", 1e3)):
        if value >= least:
            return f"{value / scale:.2g}{letter}" if value / scale < 99.5 else f"{value / scale:.0f}{letter}"
    return f"{value:g}"


def percent(value: float, place: object = None) -> str:
    """+1.5%, −2%, 0: a label of a tick, as matplotlib asks for it.

    Examples
    --------
    >>> [percent(v) for v in (1.5, -2.0, 0.0)]
    ['+1.5%', '−2%', '0']
    """
    return f"{value:+.3g}%".replace("-", "−") if abs(value) > 1e-9 else "0"


def plain(value: float) -> str:
    return f"{value:.3g}" if value < 1 else f"{value:.4g}"


def power_of_ten(value: float) -> str:
    """10^12 in plain characters, as 10¹²; 3·10¹¹."""
    exponent = int(np.floor(np.log10(value) + 1e-9))
    head = value / 10.0**exponent
    raised = str(exponent).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"10{raised}" if abs(head - 1) < 0.01 else f"{head:.2g}·10{raised}"
