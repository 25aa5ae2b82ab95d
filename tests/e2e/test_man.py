"""The manual pages, --help and TAB say the same: all of them come from one declaration."""

import json
import re
import shutil
import subprocess

import pytest

from harness import needs, programs


@pytest.fixture(scope="module")
def tree():
    text = subprocess.run([programs.program("kelp"), "__dump-options"], capture_output=True, text=True, check=True).stdout
    return json.loads(text)


def page(name, section=1):
    return (programs.build_dir() / "man" / f"{name}.{section}").read_text().replace("\\-", "-").replace("\\e", "\\")


def test_every_command_has_a_page_with_every_option(tree):
    for command in tree["commands"]:
        text = page("kelp-" + command["name"].replace(" ", "-"))
        assert command["summary"] in text
        for option in command["options"]:
            assert re.search(rf"--{re.escape(option['name'])}\\fR", text), (command["name"], option["name"])
        assert set(re.findall(r"\\fB(--[\w-]+)\\fR", text)) == {
            "--" + option[key] for option in command["options"] for key in ("name", "alias") if option.get(key)}


def test_the_page_of_the_program(tree):
    text = page("kelp")
    for command in tree["commands"]:
        assert "kelp-" + command["name"].replace(" ", "-") in text
    for option in tree["options"]:
        assert f"--{option['name']}" in text


def test_pages_of_files_and_of_the_runtime():
    for name, section, word in (("kelp.toml", 5, "[network]"), ("kelp-storage", 7, "index.json"), ("kelp-oci", 1, "bundle")):
        assert word in page(name, section)
    help_text = subprocess.run([programs.program("kelp-oci"), "--help"], capture_output=True, text=True, check=True).stdout
    commands = re.findall(r"^  ([a-z]+) ", help_text.split("options:")[0], re.M)
    assert len(commands) > 10 and all(re.search(rf"\b{command}\b", page("kelp-oci")) for command in commands)


def test_references_lead_somewhere():
    pages = {path.name for path in (programs.build_dir() / "man").glob("*.[157]")}
    for path in (programs.build_dir() / "man").glob("*.[157]"):
        text = path.read_text().replace("\\-", "-").replace("\\fR", "").replace("\\fB", "")
        for name, section in re.findall(r"\b(kelp[\w.-]*)\((\d)\)", text):
            assert f"{name}.{section}" in pages, (path.name, name)


def test_they_are_well_formed():
    needs.need("program:groff")
    for path in (programs.build_dir() / "man").glob("*.[157]"):
        done = subprocess.run(["groff", "-man", "-Kutf8", "-Tutf8", "-ww", "-z", str(path)], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == "", (path.name, done.stderr)


def test_sources_belong_to_pages(tree):
    names = {command["name"].replace(" ", "-") for command in tree["commands"]} | {"kelp", "kelp-oci", "kelp.toml", "kelp-storage"}
    assert {path.stem for path in (programs.TOP / "man").glob("*.txt")} <= names


def test_help_command(bare_kelp, tree):
    for command in ("run", "volume create"):
        assert bare_kelp("help", *command.split()).out == bare_kelp(*command.split(), "--help").out
    bare_kelp.fails("help", "comit", hint="kelp commit")
    bare_kelp.fails("comit", says="comit", hint="kelp commit")
    bare_kelp.fails("volume", "crate", hint="volume create")
    width = max(len(line) for command in tree["commands"] for line in bare_kelp(*command["name"].split(), "--help").lines)
    assert width <= 100
