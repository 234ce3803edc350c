"""The command line of `helm`, as far as `ProgramHelm` uses it, over the Helm of the SDK.

For machines without the program: the engine and its messages are Helm's own, the options and the form of the output are
those that `helm template` and `helm lint` document. Where the program is installed, the tests run it too.
"""
# ruff: noqa: T201 - a program prints

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import helm_python as sdk
import yaml


def main() -> int:
    parser = argparse.ArgumentParser(prog="helm", allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    template = commands.add_parser("template", allow_abbrev=False)
    template.add_argument("release")
    template.add_argument("chart")
    template.add_argument("--namespace", default="default")
    template.add_argument("--debug", action="store_true")
    template.add_argument("--values", required=True)
    lint = commands.add_parser("lint", allow_abbrev=False)
    lint.add_argument("chart")
    lint.add_argument("--strict", action="store_true")
    lint.add_argument("--values", required=True)
    commands.add_parser("version").add_argument("--short", action="store_true")
    options = parser.parse_args()
    if options.command == "version":
        print(sdk.helm_sdk_version())
        return 0
    values = json.loads(Path(options.values).read_text())
    try:
        return _template(options, values) if options.command == "template" else _lint(options, values)
    except sdk.HelmError as exc:
        print(f"Error: {exc}\n\nUse --debug flag to render out invalid YAML", file=sys.stderr)
        return 1


def _template(options: argparse.Namespace, values: dict[str, object]) -> int:
    print('level=DEBUG msg="Original chart version" version=""', file=sys.stderr)
    with sdk.Chart.load(options.chart) as chart:
        rendered = chart.render(values, name=options.release, namespace=options.namespace)
    code = 0
    for path, text in sorted(rendered.items()):
        if path.endswith(".txt") or not text.strip():
            continue
        print(f"---\n# Source: {path}\n{text}")
        try:
            yaml.safe_load(text)
        except yaml.YAMLError:
            code = 1
            print(f"Error: YAML parse error on {path}: error converting YAML to JSON: yaml: oops", file=sys.stderr)
    return code


def _lint(options: argparse.Namespace, values: dict[str, object]) -> int:
    report = sdk.lint(options.chart, values, strict=options.strict)
    names = {1: "INFO", 2: "WARNING", 3: "ERROR"}
    print(f"==> Linting {options.chart}")
    for found in report["messages"]:
        print(f"[{names[found['severity']]}] {found['path']}: {found['error']}")
    failed = any(found["severity"] > 1 for found in report["messages"])
    if failed:
        print("Error: 1 chart(s) linted, 1 chart(s) failed", file=sys.stderr)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
