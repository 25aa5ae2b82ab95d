#!/usr/bin/env python3
"""Makes the manual pages: short sources (man/*.txt) and the declaration of the options that `kelp __dump-options` prints.

usage: make_pages.py KELP SOURCES OUTPUT NAME...      NAME: kelp, kelp-run, ..., as the build lists them

A source holds sections: a line "# HEADING", then paragraphs; indented lines stand as they are; "TERM:: text" is an entry.
"# DESCRIPTION" of a command comes after what the declaration says.
"""

import json
import pathlib
import re
import subprocess
import sys


def escaped(text):
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.M)


def read_source(path):
    sections, heading = {}, None
    for line in path.read_text().splitlines() if path.exists() else []:
        if line.startswith("# "):
            heading = line[2:].strip()
            sections[heading] = []
        elif heading:
            sections[heading].append(line)
    return sections


def body(lines):
    out, raw = [], False
    for line in lines:
        if line.startswith("  "):
            if not raw:
                out += [".PP", ".RS 4", ".nf"]
            raw = True
            out.append(escaped(line[2:]))
            continue
        if raw and line.strip() == "":
            continue
        if raw:
            out += [".fi", ".RE"]
            raw = False
        if ":: " in line:
            term, text = line.split(":: ", 1)
            out += [".TP", ".B " + escaped(term), escaped(text)]
        elif line.strip() == "":
            out.append(".PP")
        else:
            out.append(escaped(line))
    if raw:
        out += [".fi", ".RE"]
    while out and out[0] == ".PP":
        out.pop(0)
    return out


def option_entry(option):
    names = ([f"-{option['letter']}"] if "letter" in option else []) + [f"--{option['name']}"]
    if "alias" in option:
        names.append(f"--{option['alias']}")
    head = ", ".join(f"\\fB{escaped(name)}\\fR" for name in names)
    if "value" in option:
        head += f" \\fI{escaped(option['value'])}\\fR"
    text = option["help"]
    words = [choice for choice in option.get("choices", []) if choice]
    if words:
        text += ": " + ", ".join(words)
    if option["repeatable"]:
        text += " (repeatable)"
    if "default" in option:
        text += f" (default {option['default']})"
    return [".TP", head, escaped(text[0].upper() + text[1:] + ".")]


def options_section(options, title="OPTIONS"):
    if not options:
        return []
    out, groups = [f".SH {title}"], []
    for option in options:
        if option["group"] not in groups:
            groups.append(option["group"])
    for group in groups:
        if len(groups) > 1:
            out.append(f".SS {escaped(group)}")
        for option in options:
            if option["group"] == group:
                out += option_entry(option)
    return out


def head(name, section, summary, version):
    title = name.upper().replace("-", "\\-")
    return [f'.TH "{title}" "{section}" "" "kelp {version}" "kelp"', ".SH NAME", f"{escaped(name)} \\- {escaped(summary)}"]


def rest(sections, done):
    out = []
    for heading, lines in sections.items():
        if heading not in done:
            out += [f".SH {heading}"] + body(lines)
    return out


def command_page(name, command, sections, version):
    out = head(name, 1, command["summary"], version)
    out += [".SH SYNOPSIS", f"\\fBkelp {escaped(command['name'])}\\fR " +
            ("[\\fIOPTIONS\\fR] " if command["options"] else "") + escaped(command["usage"])]
    if command["aliases"]:
        out += [".PP", "Also: " + ", ".join(f"\\fBkelp {escaped(alias)}\\fR" for alias in command["aliases"])]
    text = command.get("description", "").split("\n") if command.get("description") else []
    text += ([""] if text and "DESCRIPTION" in sections else []) + sections.get("DESCRIPTION", [])
    summary = command["summary"]
    out += [".SH DESCRIPTION"] + body(text or [summary[0].upper() + summary[1:] + "."])
    out += options_section(command["options"])
    if command.get("examples") or "EXAMPLES" in sections:
        lines = ["  " + line for line in command.get("examples", "").split("\n") if line]
        out += [".SH EXAMPLES"] + body(lines + ([""] if lines else []) + sections.get("EXAMPLES", []))
    out += rest(sections, {"DESCRIPTION", "EXAMPLES", "SEE ALSO"})
    out += [".SH SEE ALSO"] + body(sections.get("SEE ALSO", ["kelp(1)"]))
    return out


def program_page(tree, sections, version):
    out = head("kelp", 1, "containers without root and without a daemon", version)
    out += [".SH SYNOPSIS", "\\fBkelp\\fR [\\fIOPTIONS\\fR] \\fICOMMAND\\fR [\\fIARGUMENT\\fR...]"]
    out += [".SH DESCRIPTION"] + body(sections.get("DESCRIPTION", []))
    out += [".SH COMMANDS"]
    for command in tree["commands"]:
        out += [".TP", f"\\fBkelp\\-{escaped(command['name'].replace(' ', '-'))}\\fR(1)", escaped(command["summary"])]
    out += options_section(tree["options"])
    return out + rest(sections, {"DESCRIPTION"})


def plain_page(name, section, sections, version):
    summary = " ".join(line for line in sections.get("NAME", []) if line)
    return head(name, section, summary, version) + rest(sections, {"NAME"})


def main():
    kelp, sources, output, names = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]), sys.argv[4:]
    tree = json.loads(subprocess.run([kelp, "__dump-options"], capture_output=True, text=True, check=True).stdout)
    version = subprocess.run([kelp, "--version"], capture_output=True, text=True, check=True).stdout.split()[-1]
    commands = {"kelp-" + command["name"].replace(" ", "-"): command for command in tree["commands"]}
    others = {"kelp": 1, "kelp-oci": 1, "kelp.toml": 5, "kelp-storage": 7}
    missing, unknown = sorted(set(commands) - set(names)), sorted(set(names) - set(commands) - set(others))
    if missing or unknown:
        sys.exit(f"man/meson.build: pages of commands are missing: {missing}; of none: {unknown}")
    for name in names:
        sections = read_source(sources / (name.removeprefix("kelp-") + ".txt" if name in commands else name + ".txt"))
        if name in commands:
            lines = command_page(name, commands[name], sections, version)
        elif name == "kelp":
            lines = program_page(tree, sections, version)
        else:
            lines = plain_page(name, others[name], sections, version)
        (output / f"{name}.{others.get(name, 1)}").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
