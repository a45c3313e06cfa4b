"""The table of values in the chart's README: from the comments of values.yaml and the types of
values.schema.json. `helm/tests/run --readme` writes it."""

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).parent.parent / "selvage"
BEGIN, END = "<!-- values: made by helm/tests/run --readme -->", "<!-- end of values -->"
KEY = re.compile(r"^( *)([A-Za-z][A-Za-z0-9]*):(.*)$")


def comments(text):
    """The comment above each key, by its path, in the order of the file. A comment belongs to the
    key below it; a blank line ends one that belongs to none."""
    found, path, comment = {}, [], []
    for line in text.splitlines():
        stripped = line.strip()
        key = KEY.match(line)
        if stripped.startswith("#"):
            comment.append(stripped.lstrip("#").strip())
        elif not stripped:
            comment = []
        elif key:
            depth = len(key.group(1)) // 2
            path = [*path[:depth], key.group(2)]
            found[tuple(path)] = " ".join(comment)
            comment = []
    return found


def rows(values, schema, said, path=()):
    """Each value that is not a table of values: path, type, default, meaning."""
    for key, value in values.items():
        here = (*path, key)
        inner = schema["properties"][key]
        if isinstance(value, dict) and inner.get("properties") and here in said and nested(here, said):
            if said[here]:
                yield here, "", "", said[here]
            yield from rows(value, inner, said, here)
        else:
            yield here, kind(inner), json.dumps(value), said.get(here, "")


def nested(path, said):
    """Whether the values below have comments of their own; a table in one line has none."""
    return any(said[other] for other in said if len(other) > len(path) and other[: len(path)] == path)


def kind(schema):
    if "enum" in schema:
        return " or ".join(json.dumps(each) for each in schema["enum"])
    kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
    text = " or ".join(kinds)
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        text += f", {low} to {high}"
    elif low is not None:
        text += f", at least {low}"
    if schema.get("not") == {"multipleOf": 2}:
        text += ", odd"
    return text


def table():
    text = (CHART / "values.yaml").read_text()
    schema = json.loads((CHART / "values.schema.json").read_text())
    lines = ["| value | type | default | meaning |", "|---|---|---|---|"]
    for path, type_, default, meaning in rows(yaml.safe_load(text), schema, comments(text)):
        default = f"`{default}`" if default else ""
        cells = [f"`{'.'.join(path)}`", type_, default, meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


def fresh(readme):
    """The README as it should be."""
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    return f"{before}{BEGIN}\n\n{table()}\n\n{END}{after}"


if __name__ == "__main__":
    path = CHART / "README.md"
    if sys.argv[1:] != ["--write"]:
        sys.exit("usage: readme.py --write")
    path.write_text(fresh(path.read_text()))
