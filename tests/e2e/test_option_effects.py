"""An option that is offered is tested: each option of each command is given to that command by a test of its own.

What a test gives is read from its source: the words of its strings, of the module's constants it names, and of the
module's functions it calls. The table of who tests what is printed by: tests/run tests/e2e/test_option_effects.py -s
"""

import ast
import json
import pathlib
import re
import subprocess

import pytest

from harness import programs

TESTS = programs.TOP / "tests"
# These walk over the options without using them.
NO_USE = {"test_parity.py", "test_man.py", "test_completion.py", "test_option_effects.py"}
# One declaration serves both: add_run_options().
SHARED = {"create": "run", "run": "create"}


def words_of(text):
    return [word for word in re.split(r"[\s\"';()|&]+", text) if word]


class Module:
    """The words that each test of a file uses."""

    def __init__(self, path):
        self.tree = ast.parse(path.read_text())
        self.top = {}
        for node in self.tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
                self.top[node.name] = node
            elif isinstance(node, ast.Assign):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        self.top[target.id] = node

    def words(self, node, seen=()):
        found = set()
        for part in ast.walk(node):
            if isinstance(part, ast.Constant) and isinstance(part.value, str):
                found.update(words_of(part.value))
            elif isinstance(part, (ast.Name, ast.arg)):
                name = part.id if isinstance(part, ast.Name) else part.arg  # a fixture is named by an argument
                if name in self.top and name not in seen:
                    found |= self.words(self.top[name], (*seen, name))
        return found

    def tests(self):
        return {name: self.words(node, (name,)) for name, node in self.top.items() if name.startswith("test_")}


@pytest.fixture(scope="module")
def uses():
    """{(file, test): its words}"""
    found = {}
    for path in sorted([*TESTS.glob("e2e/test_*.py"), *TESTS.glob("vm/test_*.py")]):
        if path.name not in NO_USE:
            found.update({(path.name, name): words for name, words in Module(path).tests().items()})
    # Shell lines that podman and kelp play side by side: each line is one use.
    for path in sorted(TESTS.glob("e2e/lives/*.txt")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if not line.startswith("#"):
                found[path.name, f"line {number}"] = set(words_of(line))
    return found


@pytest.fixture(scope="module")
def offered():
    """[(names of the command, option)], without those that are inherited from the program"""
    text = subprocess.run([programs.program("kelp"), "__dump-options"], capture_output=True, text=True, check=True).stdout
    tree = json.loads(text)
    found = [([""], option) for option in tree["options"] if option["name"] not in ("help", "version")]
    for command in tree["commands"]:
        names = [command["name"], *command["aliases"]]
        names += [SHARED[name] for name in names if name in SHARED]
        found += [(names, option) for option in command["options"] if not option.get("global")]
    return found


def gives(words, option):
    spellings = ["--" + option["name"], *(["--" + option["alias"]] if option.get("alias") else [])]
    for word in words:
        if any(word == spelling or word.startswith(spelling + "=") for spelling in spellings):
            return True
        letter = option.get("letter")
        if letter and re.match(rf"-[a-zA-Z]*{re.escape(letter)}", word) and not word.startswith("--"):
            return True
    return False


def names_command(words, names):
    return any(set(name.split()) <= words for name in names)


def who_gives(uses, names, option):
    return [f"{file}::{test}" for (file, test), words in uses.items()
            if names_command(words, names) and gives(words, option)]


def test_every_option_is_given_by_a_test(uses, offered):
    missing = []
    for names, option in offered:
        found = who_gives(uses, names, option)
        print(f"{names[0] or 'kelp'}\t--{option['name']}\t{found[0] if found else '-'}")
        if not found:
            missing.append(f"{names[0]} --{option['name']}".strip())
    assert missing == []
