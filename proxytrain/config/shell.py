"""What to type instead of words that were not understood: quotes for the shell, and inside them quotes for Hydra.

The shell takes one layer of quotes away, splits at spaces and expands braces before this program sees a word. Each
function returns one line that ends in the form to type; that form is parsed before it is shown.
"""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Collection, Sequence

from proxytrain.config.overrides import FREE, depths, kind, known, parsed, pieces, quoted
from proxytrain.errors import did_you_mean

SMART = {**dict.fromkeys("“”„‟«»", '"'), **dict.fromkeys("‘’‚‛", "'")}
DASHES = "-–—−"
KEY = re.compile(r"[+~]*[A-Za-z_][\w./@:-]*")
VARIABLE = re.compile(r"\$(?:[A-Za-z_]\w*|\{[A-Z_][A-Z0-9_]*\})")  # ${store} is a key of ours, ${HOME} the shell's
EXAMPLE = {
    "sweep.target": "{model:{width:128},tokens:4M}",
    "sweep.grids": "[{model.width:[32,64],tokens:[1M,2M]}]",
    "fit.columns": "{params:N,loss:val_loss}",
    "fit.where": "{split:val}",
    "launch.sbatch_args": "{account:abc,mem:16G}",
}
NESTED = ("model", "parametrization", "optimizer", "schedule")  # groups, which mappings in a grid or target may hold
LONGEST = 120  # characters of a word that a line repeats


def advice(overrides: Sequence[str], number: int) -> str:
    """Return the line for an override that Hydra does not take: what is wrong, and what to type."""
    word = overrides[number]
    if line := _unseen(word):
        return line
    if sum(c in SMART for w in overrides[number:] for c in w) > 1 and (line := _smart(overrides, number)):
        return line
    key, equals, value = word.partition("=")
    if not equals or not KEY.fullmatch(key):
        return _stray(overrides, number)
    if value.startswith("="):
        return f"{shown(word)}: an override reads key=value. Type {typed(key + value)}"
    if key in FREE and sum(o.startswith(f"{key}=") for o in overrides) > 1:
        return _braces(overrides, key)
    if line := changed(overrides, number):
        return line
    if depths(value)[-1] > 0:
        if joined := _joined(overrides, number):
            return f"{shown(word)}: the shell split this word at a space. Type {typed(joined)}"
        return f"{shown(word)}: not understood: a bracket or quote is not closed. {_example(key)}"
    if key in FREE and value[:1] not in "[{":
        return _braces(overrides, key)
    of_a_mapping = key.startswith(("fit.columns.", "fit.where.", "launch.sbatch_args."))
    text = of_a_mapping or kind(key) in ("text", "text or null")
    form = inner(value) if text else _requoted(value) if kind(key) == "texts" or value[:1] in "[{" else value
    if parsed(f"{key}={form}") and (text or value[:1] not in "[{" or form[:1] == value[:1]):
        return f"{shown(word)}: needs quotes of its own inside those of the shell. Type {typed(f'{key}={form}')}"
    return f"{shown(word)}: not understood. {_example(key)}"


def changed(overrides: Sequence[str], number: int) -> str | None:
    """Return the line for an override that the shell has changed, or has left as it is; None for any other."""
    word = overrides[number]
    key, _, value = word.partition("=")
    key, value, reading = key.lstrip("+~"), value.strip(), parsed(word)
    if key in FREE and reading and _torn(reading.value()):
        return _braces(overrides, key)
    following = overrides[number + 1] if number + 1 < len(overrides) else ""
    if value == "" and following and "=" not in following and not known(following):
        return f"{shown(word)} {shown(following)}: no space stands beside the = sign. Type {typed(word + following)}"
    what = kind(key)
    if what is None or value[:1] in ("'", '"') or key == "launch.setup":
        return None
    if value == "" and key not in ("table", "data.path"):  # those have lines of their own
        form = f"{key}=[VALUE]" if what == "texts" else f"{key}=VALUE"
        return f"{key}=: the value is missing. Type {form}, or leave the key out."
    if what == "text" and value.lower() == "null":
        return f"{key}={value}: a text is needed. For a text of these letters type {typed(f'{key}={inner(value)}')}"
    if what == "text or null" and value == "None":
        return f"{key}=None: no value is written null. Type {key}=null"
    if line := _from_home(key, value):
        return line
    if reading and reading.is_sweep_override():
        form = f"[{','.join(_requoted(v) for v in pieces(value))}]" if what == "texts" else inner(value)
        wrong = "a list stands in brackets" if what == "texts" else "one text is needed, with quotes around a comma"
        return f"{shown(word)}: {wrong}. Type {typed(f'{key}={form}')}"
    return None


def dashed(argument: str, following: str, groups: Collection[str], flags: Collection[str]) -> str | None:
    """Return the line for a key that was typed with dashes, or a flag with a long dash; None for any other word."""
    bare = argument.lstrip(DASHES)
    name, equals, _ = bare.partition("=")
    if argument[:1] not in DASHES or argument.partition("=")[0] in flags:
        return None
    if argument[:1] != "-" and f"--{name}" in flags:
        return f"{argument}: this dash is not the one of the keyboard. Type --{bare}"
    if name.partition(".")[0] not in groups:
        return None
    value = "VALUE" if not following or following[:1] in DASHES or "=" in following else following
    return f"{shown(argument)}: keys have no dashes. Type {typed(bare if equals else f'{bare}={value}')}"


def shown(word: str) -> str:
    """Return a word as a line may repeat it: without line breaks, and not too long."""
    text = re.sub(r"[\x00-\x1f\x7f]", lambda m: repr(m[0])[1:-1], word)
    return (text if len(text) <= LONGEST else f"{text[:LONGEST]}…") if text.strip() else repr(text)


def typed(word: str) -> str:
    """Return a word as it is typed in bash or zsh: in quotes where it needs them.

    Examples
    --------
    >>> print(typed('store="my (runs)"'), typed("lr=0.1"))
    'store="my (runs)"' lr=0.1
    """
    if not word.isprintable():
        plain = word.replace("\\", "\\\\").replace("'", "\\'")
        return "$'" + "".join(c if c.isprintable() else repr(c)[1:-1] for c in plain) + "'"
    return shlex.quote(word)


def inner(text: str) -> str:
    """Return a text in the quotes that Hydra needs for it, double ones where they serve."""
    plain = f'"{text}"'
    reading = parsed(f"x={plain}")
    return plain if reading and reading.value() == text else quoted(text)


def _unseen(word: str) -> str | None:
    """Return the line for signs that look like others, as text editors and web pages put them."""
    if word.endswith("\r"):
        return f"{shown(word)}: ends with a carriage return. Save the script with the line ends of Unix (dos2unix)."
    for c in word:
        if unicodedata.category(c) in ("Zs", "Cf") and c != " ":
            return f"{shown(word)}: contains {unicodedata.name(c).lower()} (U+{ord(c):04X}). Type it anew."
    plain = "".join("-" if c in DASHES else c for c in word)
    if plain != word and kind(word.partition("=")[0]) is None and parsed(plain):
        return f"{shown(word)}: the dash is not the minus sign of the keyboard. Type {typed(plain)}"
    return None


def _requoted(value: str) -> str:
    """Return a list, mapping or text with quotes around each text in it that Hydra does not take without."""
    value = value.strip()
    if value[:1] == "[" and value[-1:] == "]":
        return f"[{','.join(map(_requoted, pieces(value[1:-1])))}]"
    if value[:1] == "{" and value[-1:] == "}":
        entries = (part.partition(":") for part in pieces(value[1:-1]))
        return "{" + ",".join(f"{key.strip()}{colon}{_requoted(rest)}" for key, colon, rest in entries) + "}"
    reading = parsed(f"x={value}")
    return value if reading and not reading.is_sweep_override() else inner(value)


def _example(key: str) -> str:
    return f"For example, type {typed(f'{key}={EXAMPLE[key]}' if key in EXAMPLE else 'model.width=64')}"


def _joined(overrides: Sequence[str], number: int) -> str | None:
    """Return a word that the shell split at spaces, put together with those after it, in Hydra's quotes."""
    for end in range(number + 2, len(overrides) + 1):
        key, _, value = " ".join(overrides[number:end]).partition("=")
        if depths(value)[-1] == 0:
            form = f"{key}={_requoted(value)}"
            return form if parsed(form) else None
    return None


def _smart(overrides: Sequence[str], number: int) -> str | None:
    """Return the line for curly quotes, which a shell does not take for quotes."""
    marked = [i for i, word in enumerate(overrides) if set(word) & set(SMART)]
    text = " ".join(overrides[min(marked[0], number) : marked[-1] + 1])
    try:
        words = shlex.split("".join(SMART.get(c, c) for c in text))
    except ValueError:
        return None
    if not all(map(parsed, words)):
        return None
    return f"{shown(text)}: these quotes are curly, the shell needs straight ones. Type {' '.join(map(typed, words))}"


def _stray(overrides: Sequence[str], number: int) -> str:
    """Return the line for a word that is no key=value."""
    word, rest = overrides[number], overrides[number + 1 :]
    before = overrides[number - 1] if number else ""
    key, colon, value = word.partition(":")
    if known(word):
        following = rest[0] if rest else ""
        value = (rest[1] if len(rest) > 1 else "VALUE") if following == "=" else following.removeprefix("=") or "VALUE"
        value = "VALUE" if following[:1] != "=" and "=" in following else value
        return f"{shown(word)}: an override reads key=value, without spaces. Type {typed(f'{word}={value}')}"
    if colon and known(key):
        return f"{shown(word)}: an override reads key=value. Type {typed(f'{key}={value}')}"
    name, equals, start = before.partition("=")
    if equals and start and name != "sweep.name" and kind(name) in ("text", "text or null"):
        more = [word]
        more += [w for w, ended in zip(rest, _until(rest)) if not ended]
        form = f"{name}={_requoted(' '.join([start, *more]))}"
        return f"{shown(before)} {shown(word)}: the shell split this word at a space. Type {typed(form)}"
    for ending, reads in ((".csv", "table"), (".parquet", "table"), (".json", "file"), (".txt", "data.files")):
        if word.endswith(ending):
            return f"{shown(word)}: an override reads key=value. Type {typed(f'{reads}={_requoted(word)}')}"
    from proxytrain.config.compose import experiments

    if word in (names := experiments()):
        return f"{word}: an override reads key=value. Type experiment={word}"
    near = did_you_mean(word, [f"experiment={n}" for n in names])
    return f"{shown(word)}: an override reads key=value, such as model.width=64{near}"


def _until(words: Sequence[str]) -> list[bool]:
    """Return for each word whether an override has come by then."""
    return [any("=" in w for w in words[: i + 1]) for i in range(len(words))]


def _torn(value: object) -> bool:
    """Return whether a mapping lost its braces to the shell."""
    if isinstance(value, list):
        return any(isinstance(v, str) and ":" in v for v in value)
    return isinstance(value, str) and value != "" and not value.startswith("${")


def _braces(overrides: Sequence[str], key: str) -> str:
    """Return the line for a mapping whose braces the shell expanded into several words."""
    words = [o for o in overrides if o.startswith(f"{key}=")]
    parts = [w.partition("=")[2].strip() for w in words]
    if key == "sweep.grids":
        parts = [p.removeprefix("[").removesuffix("]") for p in parts]
    inside = pieces(",".join(parts))
    form = "{" + ",".join(_nested([p.strip() for p in inside])) + "}"
    form = f"{key}=[{form}]" if key == "sweep.grids" else f"{key}={form}"
    reading = parsed(form)
    whole = reading and len(words) > 1 and not _torn(reading.value()) and len(set(_keys(inside))) == len(inside)
    seen = shown(" ".join(words))
    if whole:
        return f"{seen}: the shell expanded the braces. Type {typed(form)}"
    return f"{seen}: a mapping in braces is needed, in single quotes. {_example(key)}"


def _nested(parts: list[str]) -> list[str]:
    """Return entries with those of one group together: model:width:64 and model:depth:2 as model:{width:64,depth:2}."""
    groups: dict[str, list[str]] = {}
    for part in parts:
        key, _, rest = part.partition(":")
        is_nested = key in NESTED and ":" in rest and not rest.startswith("{")
        groups.setdefault(key, []).append(rest if is_nested else part)
    return [f"{k}:{{{','.join(v)}}}" if v[0].partition(":")[0] != k else v[0] for k, v in groups.items()]


def _keys(parts: list[str]) -> list[str]:
    return [p.rpartition(":")[0] or p for p in parts]


def _from_home(key: str, value: str) -> str | None:
    """Return the line for ~ and $NAME that the shell has left as they are: in single quotes, or after an = sign."""
    listed = value[:1] == "[" and value[-1:] == "]"
    items = [item.strip() for item in (pieces(value[1:-1]) if listed else [value])]
    if not any(item[:1] == "~" or VARIABLE.search(item) for item in items if item[:1] not in ("'", '"')):
        return None
    full = [f"$HOME{item[1:]}" if item == "~" or item.startswith("~/") else item for item in items]
    wrong = f"{key}={shown(value)}: the shell did not replace ~ or $NAME"
    if any(c in item for item in full for c in "'\"`\\") or any(item[:1] == "~" for item in full):
        return f"{wrong}. Type the full path."
    whole = ",".join(f"'{item}'" for item in full)
    return f'{wrong}. Type "{key}={f"[{whole}]" if listed else whole}"'
