"""Helm's complaints, each as one line that names the file and the cause.

The SDK reports a chain of calls over several lines, the program the same chain in one; both end in the place where
somebody wrote the mistake, and that is what a reader wants first.
"""

from __future__ import annotations

import re
from pathlib import Path

from clara_wf.model.errors import ChartError

# "clara-workflow/templates/stages/ai-vnet/container.yaml:12", as Go's templates write a place.
_PLACE = re.compile(r"(?P<file>[\w.-]+/(?:charts/[\w.-]+/)*templates/[^\s:()\"]+):(?P<line>\d+)(?::\d+)?\)?:?\s*")
_EXECUTING = re.compile(r'^executing "[^"]*" at (?P<expression><.*?>): (?P<cause>.*)$')
_NO_TEMPLATE = re.compile(r'no template "(?P<stage>.+)\.(?P<part>container|mounts|volumes)"')
_SCHEMA = re.compile(r"^\s*- at '(?P<pointer>[^']*)': (?P<cause>.+)$", re.MULTILINE)
_YAML_FILE = re.compile(r"cannot load (?P<file>\S+?): .*?(?:line (?P<line>\d+): )?(?P<cause>[^:]+)$")
# What the helpers of the chart say with `fail` begins with the key at fault.
_VALUES_KEY = re.compile(r"^workflows?\.")


def explain(message: str, chart: Path) -> ChartError:
    """Translate what Helm said about a chart.

    Parameters
    ----------
    message : str
        Helm's text, from the SDK or from the program's standard error.
    chart : Path
        The chart's folder, for the file names in the error.
    """
    if "of the schema(s)" in message:
        return _schema_error(message, chart)
    text = " ".join(message.removeprefix("Error: ").split())
    missing = _NO_TEMPLATE.search(text)
    if missing:
        stage, part = missing["stage"], missing["part"]
        file = "container.yaml" if part == "container" else "volume.yaml"
        return ChartError(
            f'{chart / "templates/stages" / stage / file}: nothing there defines "{stage}.{part}"',
            remedy=f"Restore the file, or take stage '{stage}' out of the workflow.",
        )
    places = list(_PLACE.finditer(text))
    if places:
        return _template_error(places[-1], text, chart)
    loading = _YAML_FILE.search(text)
    if loading:
        line = f":{loading['line']}" if loading["line"] else ""
        return ChartError(f"{chart / loading['file']}{line}: {loading['cause'].strip()}")
    return ChartError(f"{chart}: {text}")


def _template_error(place: re.Match[str], text: str, chart: Path) -> ChartError:
    cause = text[place.end() :].strip()
    if _VALUES_KEY.match(cause):
        return ChartError(f"{chart / 'values.yaml'}: {cause}")
    executing = _EXECUTING.match(cause)
    if executing:
        cause = f"{executing['cause']} at {executing['expression']}"
    inside = Path(*Path(place["file"]).parts[1:])
    return ChartError(f"{chart / inside}:{place['line']}: {cause}")


def _schema_error(message: str, chart: Path) -> ChartError:
    faults = [
        f"{match['pointer'].strip('/').replace('/', '.') or 'top level'}: {match['cause'].strip()}"
        for match in _SCHEMA.finditer(message)
    ]
    if not faults:  # the schema itself does not parse
        return ChartError(f"{chart / 'values.schema.json'}: {' '.join(message.splitlines()[-1:]).strip()}")
    return ChartError(
        f"values refused: {'; '.join(faults)}", remedy=f"{chart / 'values.schema.json'} says what is allowed."
    )
