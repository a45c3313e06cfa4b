"""The image: what its recipes say. That it runs is shown where there is a container engine."""

import re

import chart
import yaml
from chart import render

IMAGE = chart.TESTS.parent / "image"


def instructions(name):
    """The instructions of a recipe, one a line."""
    lines = [line for line in (IMAGE / name).read_text().splitlines() if not line.startswith("#")]
    return [line for line in re.sub(r"\\\n *", "", "\n".join(lines)).splitlines() if line]


def last_stage(name):
    """The instructions of the last stage of a recipe."""
    lines = instructions(name)
    begin = max(index for index, line in enumerate(lines) if line.startswith("FROM "))
    return lines[begin:]


def test_the_image_holds_the_program_and_nothing_else():
    compiled, ready = last_stage("Containerfile"), last_stage("Containerfile.program")
    for stage in (compiled, ready):
        assert stage[0] == "FROM scratch"
        assert [line.split()[0] for line in stage[1:]] == ["COPY", "USER", "ENTRYPOINT"]
        assert stage[1].split()[-1] == "/selvage"
        assert stage[3] == 'ENTRYPOINT ["/selvage"]'
    assert compiled[2:] == ready[2:], "both ways lead to the same image"


def test_the_user_of_the_image_is_the_one_of_the_chart():
    pod = render().origins()["spec"]["template"]["spec"]
    user, group = last_stage("Containerfile.program")[2].split()[1].split(":")
    assert int(user) == pod["securityContext"]["runAsUser"]
    assert int(group) == pod["securityContext"]["runAsGroup"]


def test_it_is_compiled_from_the_lock_file_without_the_network():
    text = (IMAGE / "Containerfile").read_text()
    assert "cargo fetch --locked" in text
    for recipe in (text, (IMAGE / "build").read_text()):
        assert "cargo build --frozen" in recipe
        assert "+crt-static" in recipe


def test_the_toolchain_of_the_image_is_the_one_of_the_sources():
    """Given another, or the file that names components, rustup would fetch a second toolchain."""
    channel = re.search(r'channel = "(.*)"', (chart.ROOT / "rust-toolchain.toml").read_text()).group(1)
    begin = instructions("Containerfile")[0]
    assert begin == f"FROM docker.io/library/rust:{channel}-bookworm AS fetched"
    assert "rust-toolchain.toml" not in allowed()


def test_any_engine_understands_the_recipes():
    """podman before 4.5 refuses a recipe that has a flag other than --mount at RUN."""
    for name in ("Containerfile", "Containerfile.program"):
        for line in instructions(name):
            assert not re.match(r"RUN\s+--(?!mount=)", line), line


def allowed():
    """What the context of the container's build is made of, at the top. Engines find this file by
    the name of the recipe that it belongs to."""
    lines = (IMAGE / "Containerfile.dockerignore").read_text().splitlines()
    lines = [line for line in lines if line and not line.startswith("#")]
    assert lines[0] == "*" and lines[-1] == "**/target"
    return {line[1:] for line in lines if line.startswith("!")}


def test_all_members_of_the_workspace_are_in_the_context():
    """cargo reads every member's manifest, also of those that it does not build."""
    manifest = (chart.ROOT / "Cargo.toml").read_text()
    members = re.search(r"members = \[(.*?)\]", manifest, re.S).group(1)
    for member in re.findall(r'"(.*?)"', members):
        assert member.split("/")[0] in allowed(), member
    # The configuration of cargo names a tool that the build calls.
    tool = re.search(r'PROTOC = \{ value = "(.*?)"', (chart.ROOT / ".cargo" / "config.toml").read_text())
    assert ".cargo" in allowed() and tool.group(1).split("/")[0] in allowed()


def test_the_chart_and_the_program_have_one_version():
    about = yaml.safe_load((chart.CHART / "Chart.yaml").read_text())
    manifest = (chart.ROOT / "Cargo.toml").read_text()
    assert about["appVersion"] == re.search(r'^version = "(.*)"', manifest, re.M).group(1)
