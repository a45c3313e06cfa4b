"""Podman and the image, once for all tests of pods."""

import os
import pathlib
import re

import chart
import podman
import pytest


def required():
    """Whether it is a failure that pods cannot be run here."""
    return os.environ.get("CI") or os.environ.get("SELVAGE_PODS") == "required"


@pytest.fixture(scope="session")
def engine():
    if reason := podman.why_not():
        pytest.fail(reason) if required() else pytest.skip(reason)
    target = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", chart.ROOT / "target"))
    made = podman.Podman(target / "pods")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="session")
def program(engine):
    """Builds the image as people do, but with the profile that compiles quickly; its program."""
    engine.corner.variables["SELVAGE_PROFILE"] = "dev"
    said = engine.command([chart.ROOT / "helm" / "image" / "build"], timeout=3000).stdout
    name = re.search(r"^built (\S+) of (\S+)$", said, re.M)
    assert name, said
    return name.group(2)
