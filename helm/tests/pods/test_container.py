"""The recipe that compiles in a container, carried out. Its toolchain is an image of a registry; a
cargo of our own stands in for it here, that only looks at what it is asked and where."""

import json
import os
import re
import shutil
import subprocess

import chart
import pytest

TOOLCHAIN = re.search(r'channel = "(.*)"', (chart.ROOT / "rust-toolchain.toml").read_text()).group(1)
TRIPLE = "x86_64-unknown-linux-gnu"
IMAGE = "localhost/contained"

CARGO = f"""#!/bin/sh
set -eu
case "$1 $*" in
fetch*--locked*) touch /fetched ;;
build*--frozen*--profile\\ dist*--target\\ {TRIPLE}*)
    [ -e /fetched ]
    case "$RUSTFLAGS" in *target-feature=+crt-static*) ;; *) exit 1 ;; esac
    mkdir -p target/{TRIPLE}/dist
    cp /program target/{TRIPLE}/dist/selvage
    ;;
*) exit 1 ;;
esac
"""


@pytest.fixture
def clone(tmp_path):
    """A folder as people have it, with what must stay out of the image's context."""
    folder = tmp_path / "clone"
    shutil.copytree(chart.ROOT, folder, symlinks=True, ignore=shutil.ignore_patterns("target", ".git"))
    for place in ("target", "cli/target", "proto/fuzz/target", ".git", "notes"):
        (folder / place).mkdir(exist_ok=True)
        (folder / place / "STRAY").write_text("not a source")
    (folder / "STRAY").write_text("not a source")
    return folder


@pytest.fixture
def toolchain(engine, tmp_path):
    """The image that the recipe begins with, under its name; what a shell wants comes by mounts."""
    folder = tmp_path / "toolchain"
    folder.mkdir()
    (folder / "cargo").write_text(CARGO)
    (folder / "cargo").chmod(0o755)
    (folder / "Containerfile").write_text("FROM scratch\nCOPY cargo /cargo/cargo\nENV PATH=/cargo:/usr/bin:/bin\n")
    name = f"docker.io/library/rust:{TOOLCHAIN}-bookworm"
    engine.run("build", "--quiet", "--tag", name, folder)
    yield name
    engine.run("image", "rm", "--force", name, IMAGE, f"{IMAGE}-sources", check=False)


def test_the_recipe_is_carried_out_in_the_folder_of_the_sources(engine, program, clone, toolchain):
    mounts = [f"--volume={path}:{path}:ro" for path in ("/usr", "/bin", "/lib", "/lib64") if os.path.exists(path)]
    mounts.append(f"--volume={os.path.abspath(program)}:/program:ro")
    # Neither --ignorefile nor a network; and no pull, so that it must be the toolchain of above.
    words = ["build", "--pull=never", "--network=none", *mounts, "-f", clone / "helm" / "image" / "Containerfile"]
    engine.run(*words, "--target", "fetched", "--tag", f"{IMAGE}-sources", clone)
    engine.run(*words, "--tag", IMAGE, clone)

    container = engine.command(["buildah", "from", "--pull-never", f"{IMAGE}-sources"]).stdout.strip()
    root = engine.command(["buildah", "mount", container]).stdout.strip()
    source = chart.pathlib.Path(root) / "source"
    assert not list(source.rglob("STRAY"))
    # Else rustup would fetch the components that it asks for.
    assert not (source / "rust-toolchain.toml").exists()
    # All that cargo reads before it compiles, and a lock file that fits it.
    words = ["--frozen", "--format-version=1", f"--filter-platform={TRIPLE}", "--manifest-path", source / "Cargo.toml"]
    said = subprocess.run(
        ["cargo", "metadata", *words],
        # Where the toolchain is the one of the file that is not there.
        cwd=chart.ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    members = json.loads(said.stdout)["workspace_members"]
    assert any(f"{source}/cli#" in member for member in members), members
    engine.command(["buildah", "rm", container])

    told = json.loads(engine.run("image", "inspect", IMAGE))[0]["Config"]
    assert told["Entrypoint"] == ["/selvage"] and told["User"] == "65532:65532" and "Cmd" not in told
    assert engine.run("run", "--rm", "--network", "none", "--read-only", IMAGE, "--version").startswith("selvage ")
