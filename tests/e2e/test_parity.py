"""kelp's command line beside podman's: tests/parity holds what podman offers, and what kelp leaves out with the reason."""

import json
import re
import subprocess

import pytest

from harness import programs

PARITY = programs.TOP / "tests/parity"


def rows(name):
    return [line.split("\t") for line in (PARITY / name).read_text().splitlines() if line and not line.startswith("#")]


@pytest.fixture(scope="module")
def tree():
    text = subprocess.run([programs.program("kelp"), "__dump-options"], capture_output=True, text=True, check=True).stdout
    return json.loads(text)


@pytest.fixture(scope="module")
def offered(tree):
    """{command without "podman", aliases too: its spellings}; "" is the program itself."""
    def spellings(options):
        found = {"--help", "-h"}
        for option in options:
            found |= {"--" + option["name"]} | {"--" + option[key] for key in ("alias",) if option.get(key)}
            found |= {"-" + option[key] for key in ("letter",) if option.get(key)}
        return found

    commands = {"": spellings(tree["options"])}
    for command in tree["commands"]:
        for name in [command["name"], *command["aliases"]]:
            commands[name] = spellings(command["options"])
    return commands


def left_out():
    return {(command, option): kind for command, option, kind, _ in rows("left_out.tsv")}


def is_later(command, spellings=()):
    out = left_out()
    words = command.split()
    if any(out.get((" ".join(words[:n]), "*")) == "later" for n in range(1, len(words) + 1)):
        return True
    return any(out.get((command, spelling)) == "later" for spelling in spellings)


def test_every_command(tree, offered):
    groups = {group["name"] for group in tree["groups"]}
    missing = [name for name, _ in ((row[0].removeprefix("podman "), row[1]) for row in rows("commands.tsv"))
               if name not in offered and name not in groups and not is_later(name)]
    assert missing == []


def compare(offered):
    """{tier: (number wanted, [(command, spellings) missing])}"""
    wanted, missing = {"1": 0, "2": 0}, {"1": [], "2": []}
    for command, text, _, tier in rows("options.tsv"):
        command = command.removeprefix("podman").strip()
        spellings = re.findall(r"--?[\w-]+", text)
        if is_later(command, spellings):
            continue
        wanted[tier] += 1
        if not set(spellings) <= offered.get(command, set()):
            missing[tier].append((command, spellings))
    return wanted, missing


def test_tier_one_is_complete(offered):
    wanted, missing = compare(offered)
    assert wanted["1"] > 200 and missing["1"] == []


def test_tier_two_is_nearly_complete(offered):
    wanted, missing = compare(offered)
    never = {key for key, kind in left_out().items() if kind == "never"}
    unexplained = [(command, spellings) for command, spellings in missing["2"]
                   if not any((command, spelling) in never for spelling in spellings)]
    assert unexplained == []
    assert len(missing["2"]) <= 0.05 * wanted["2"], f"{len(missing['2'])} of {wanted['2']}"


def test_the_list_is_true(offered):
    """What is offered by now has no place in the list."""
    stale = [(command, option) for (command, option) in left_out()
             if (option == "*" and command in offered) or option in offered.get(command, set())]
    assert stale == []


def test_help_shows_every_option(tree, bare_kelp):
    for command in tree["commands"]:
        text = bare_kelp(*command["name"].split(), "--help").out
        for option in command["options"]:
            assert re.search(rf"--{re.escape(option['name'])}\b", text), (command["name"], option["name"])
