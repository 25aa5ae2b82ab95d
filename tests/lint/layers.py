#!/usr/bin/env python3
"""Holds the include lines of src/ against the layer table of ARCHITECTURE.md, and the names and the form of files.

usage: layers.py includes|names|functions|format|paths   (one check each; exit 77: the tool for it is missing)
"""

import pathlib
import pwd
import re
import shutil
import subprocess
import sys

TOP = pathlib.Path(__file__).resolve().parent.parent.parent
SRC = TOP / "src"

# layer -> layers it may name in an include line. The same table stands in ARCHITECTURE.md.
MAY_USE = {
    "base": set(),
    "sys": {"base"},
    "spec": {"sys", "base"},
    "cgroup": {"spec", "sys", "base"},
    "runtime": {"cgroup", "spec", "sys", "base"},
    "monitor": {"sys", "base"},
    "store": {"spec", "sys", "base"},
    "image": {"store", "spec", "sys", "base"},
    "engine": {"store", "monitor", "cgroup", "spec", "sys", "base"},
    "build": {"engine", "store", "spec", "sys", "base"},
    "cli": {"build", "engine", "store", "spec", "sys", "base"},
}

# Heavy headers: where they may stand, and never in a header of ours (compile time, start-up time).
HEAVY = {
    "nlohmann/json.hpp": {"spec", "store", "engine", "cli", "image", "runtime", "build"},
    "curl/curl.h": {"image"},
    "archive.h": {"image"},
    "openssl/evp.h": {"image"},
    "seccomp.h": {"runtime"},
    "iostream": set(),
    "regex": set(),
    "filesystem": set(),
}

FORBIDDEN_NAMES = {"utils", "util", "common", "misc", "helpers", "helper"}
INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^">]+)[">]', re.M)


def sources():
    return sorted(p for p in SRC.rglob("*") if p.suffix in (".cc", ".h"))


def documented_layers():
    """The table of ARCHITECTURE.md: layer -> layers it may use."""
    rows = re.findall(r"^\| (\w+) \| ([\w, –]+) \| [^|]+ \| [^|]+ \|$", (TOP / "ARCHITECTURE.md").read_text(), re.M)
    return {layer: set(re.findall(r"\w+", names)) for layer, names in rows if layer != "layer"}


def where(path):
    return path.relative_to(TOP)


def check_includes():
    documented, there = documented_layers(), {path.name for path in SRC.iterdir() if path.is_dir()}
    for layer in sorted(there):  # layers that are only planned do not count
        said, held = documented.get(layer), MAY_USE.get(layer, set()) & there
        if said != held:
            yield f"ARCHITECTURE.md: {layer} may use {sorted(said or ())}, and by tests/lint/layers.py {sorted(held)}"
    for path in sources():
        layer = path.relative_to(SRC).parts[0]
        if layer not in MAY_USE:
            yield f"{where(path)}: the layer {layer} is not in the table"
            continue
        includes = INCLUDE.findall(path.read_text())
        for bracket, name in includes:
            target = name.split("/")[0]
            if bracket == '"' and "/" in name and target in MAY_USE and target != layer and target not in MAY_USE[layer]:
                yield f"{where(path)}: {layer} may not use {target} ({name})"
            if bracket == '"' and "/" not in name and name != "kelp_config.h" and not name.endswith(".inc"):
                yield f'{where(path)}: "{name}" lacks its layer'
            if name in HEAVY and (path.suffix == ".h" or layer not in HEAVY[name]):
                yield f"{where(path)}: <{name}> may not stand here"
        own = path.with_suffix(".h")
        if path.suffix == ".cc" and own.exists() and includes and includes[0][1] != str(own.relative_to(SRC)):
            yield f"{where(path)}: its own header is not the first include"
        if path.suffix == ".h" and "#pragma once" not in path.read_text():
            yield f"{where(path)}: no #pragma once"


def tracked():
    done = subprocess.run(["git", "-C", str(TOP), "ls-files", "-z"], capture_output=True)
    if done.returncode == 0:
        return [TOP / name for name in done.stdout.decode().split("\0") if name and (TOP / name).is_file()]
    skip = re.compile(r"/(\.git|build[^/]*|__pycache__)/")
    return [p for p in TOP.rglob("*") if p.is_file() and not skip.search(str(p.relative_to(TOP.parent)))]


def check_names():
    for path in tracked():
        relative = path.relative_to(TOP)
        if relative.parts[0] not in ("src", "tests", "contrib"):
            continue
        words = {pathlib.Path(part).name.split(".")[0].lower() for part in relative.parts}
        for word in words & FORBIDDEN_NAMES:
            yield f"{where(path)}: a name that says nothing ({word})"
        if relative.parts[0] == "src" and path.suffix in (".cpp", ".cxx", ".hpp", ".hh"):
            yield f"{where(path)}: sources are .cc and .h"


MAX_LINES = 100
NO_FUNCTION = re.compile(r"^(namespace|struct|class|enum|union|extern|constexpr)\b|[;,]$|= ?\{$")


def functions(lines):
    """(number of the first line, number of the last one) of each, in the form that clang-format gives them: a head that
    begins at the left margin and ends in "{", and a lone "}"."""
    first, inside = None, False
    for number, line in enumerate(lines):
        if not inside and re.match(r"[A-Za-z_:\[]", line):
            first = None if NO_FUNCTION.search(line) and not line.endswith(",") else number
        inside = inside or (first is not None and line.endswith("{"))
        if line.startswith("}"):
            if inside:
                yield first, number
            first, inside = None, False


def check_functions():
    """None is longer than MAX_LINES, unless the comment at its head says why: "In one piece: …"."""
    for path in sources():
        lines = path.read_text().splitlines()
        for first, last in functions(lines):
            head = first
            while head > 0 and lines[head - 1].startswith(("//", "template")):
                head -= 1
            if last - first + 1 > MAX_LINES and "In one piece:" not in "\n".join(lines[head:first]):
                yield f"{where(path)}:{first + 1}: a function of {last - first + 1} lines, and no reason at its head"


def check_format():
    tool = shutil.which("clang-format")
    if tool is None:
        print("clang-format is not installed")
        sys.exit(77)
    files = [p for p in tracked() if p.suffix in (".cc", ".h") and p.relative_to(TOP).parts[0] in ("src", "tests", "contrib")]
    done = subprocess.run([tool, "--dry-run", "--Werror", "--ferror-limit=1", *map(str, files)], capture_output=True, text=True)
    for line in done.stderr.splitlines():
        if "error:" in line:
            yield line.replace(str(TOP) + "/", "")


def check_paths():
    """No path of the machine that a file was written on: a home of one of its users, the tree's own place."""
    homes = {user.pw_dir for user in pwd.getpwall() if user.pw_uid >= 1000 and user.pw_dir.count("/") > 1}
    places = [re.escape(place.encode()) for place in sorted({*homes, str(TOP)}) if place != "/nonexistent"]
    pattern = re.compile(rb"(?<![\w.$}/-])(?:" + b"|".join(places) + rb")/")
    for path in tracked():
        if path.suffix in (".tar", ".png") or path == pathlib.Path(__file__).resolve():
            continue
        for number, line in enumerate(path.read_bytes().splitlines(), 1):
            match = pattern.search(line)
            if match:
                yield f"{where(path)}:{number}: a path of one machine ({match.group().decode()})"


CHECKS = {"includes": check_includes, "names": check_names, "functions": check_functions, "format": check_format, "paths": check_paths}

if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1] not in CHECKS:
        sys.exit(__doc__)
    problems = list(CHECKS[sys.argv[1]]())
    print("\n".join(problems) if problems else f"{sys.argv[1]}: nothing to say")
    sys.exit(1 if problems else 0)
