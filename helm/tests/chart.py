"""The chart, rendered by the real Helm engine."""

import functools
import json
import pathlib
import re

import yaml
from helm_python import _native
from helm_python import chart as helm

TESTS = pathlib.Path(__file__).parent
ROOT = TESTS.parent.parent
CHART = TESTS.parent / "selvage"
EXAMPLES = {path.stem: path for path in sorted((TESTS.parent / "examples").glob("*.yaml"))}
CASES = EXAMPLES | {"defaults": None, "everything": TESTS / "everything.yaml"}

# The oldest that the chart admits, and one of the newest.
KUBERNETES = ["1.28", "1.36"]


class Rendered(list):
    """All objects of a release, and what it says to people."""

    notes = ""
    text = ""

    def of(self, kind, suffix=None):
        """The objects of a kind, those whose names end so."""
        return [
            each
            for each in self
            if each["kind"] == kind and (suffix is None or each["metadata"]["name"].endswith(suffix))
        ]

    def one(self, kind, suffix=None):
        (found,) = self.of(kind, suffix)
        return found

    def origins(self):
        return self.one("StatefulSet")

    def edges(self):
        return self.one("Deployment", "-edge")

    def pods(self):
        """The template of every pod, by the name of the object that makes it."""
        found = {}
        for each in self:
            if each["kind"] == "Pod":
                found[each["metadata"]["name"]] = each
            elif "template" in each.get("spec", {}):
                found[each["metadata"]["name"]] = each["spec"]["template"]
        return found

    def config(self, role):
        """The TOML of a role."""
        return self.one("ConfigMap", f"-{role}")["data"][f"{role}.toml"]


def values_of(case):
    path = CASES[case]
    return yaml.safe_load(path.read_text()) if path else {}


def merged(first, *others):
    """Tables of values, the later over the earlier."""
    out = dict(first)
    for other in others:
        for key, value in other.items():
            both = isinstance(value, dict) and isinstance(out.get(key), dict)
            out[key] = merged(out[key], value) if both else value
    return out


def render(values=None, *, kubernetes=KUBERNETES[-1], chart=CHART, upgrade=False, name="demo"):
    options = {
        "name": name,
        "namespace": "media",
        "kube_version": f"v{kubernetes}.0",
        "is_install": not upgrade,
        "is_upgrade": upgrade,
        "strict": False,
    }
    return _rendered(json.dumps(values or {}), json.dumps(options), chart)


@functools.cache
def _rendered(values, options, path):
    with helm.Chart.load(str(path)) as chart:
        chart.validate_schema(json.loads(values))
        files = json.loads(_native.call_string("helm_render", chart._raw(), values, options))
    rendered = Rendered()
    for file, text in sorted(files.items()):
        if file.endswith("NOTES.txt"):
            rendered.notes = text
        elif text.strip():
            rendered.text += f"---\n# {file}\n{text}\n"
            rendered.extend(each for each in yaml.safe_load_all(text) if each)
    return rendered


def refusal(values, **options):
    """Why these values are refused; fails if they are not."""
    try:
        render(values, **options)
    except Exception as error:  # the engine's errors have no common base
        return str(error)
    raise AssertionError(f"not refused: {values}")


def toml(text):
    """The lines `a.b = value` as {"a.b": value}: each value is JSON as well."""
    pairs = (re.fullmatch(r"([a-z0-9_.]+) = (.*)", line).groups() for line in text.splitlines())
    return {key: json.loads(value) for key, value in pairs}
