"""The same command lines through podman and kelp: output, exit status, and the keys of JSON documents."""

import json
import pathlib
import re
import subprocess
import tempfile

import pytest

from harness import needs, programs, twin

PARITY = programs.TOP / "tests/parity"


@pytest.fixture(scope="module")
def podman(busybox_archive):
    needs.need("program:podman")
    needs.need("userns")
    directory = pathlib.Path(tempfile.mkdtemp(prefix="kt-p", dir="/tmp"))
    made = twin.Podman(directory)
    if not made.works(busybox_archive):
        made.end()
        needs.skip("podman-runs", "podman cannot run a container here")
    yield made
    made.end()
    from harness import leaks
    leaks.remove_tree(directory)


def emptied(tool, archive=None):
    """No container, volume, secret and image of an earlier life, and busybox for the next one."""
    tool("rm", "-f", "-a", "-t", "0", code=None)
    tool("volume", "rm", "-a", "-f", code=None)
    tool("secret", "rm", "-a", code=None)
    tool("rmi", "-a", "-f", code=None)
    if archive:
        for directory in (tool.runtime_dir, tool.data):
            for events in directory.rglob("events.log"):
                events.unlink()
        tool("load", "-q", "-i", archive)
    return tool


@pytest.fixture
def both(podman, kelp, busybox_archive):
    yield kelp, emptied(podman, busybox_archive)
    emptied(podman)
    podman.end_pause()


class Play:
    """A life, once: what differed by number of the line, and which exceptions were needed."""

    def __init__(self, tools, lines, place, variables):
        self.differences, self.used, self.areas = {}, set(), {}
        known = twin.allowed("command")
        stages = [twin.Stage(tool, place / directory, variables) for tool, directory in zip(tools, ("mine", "peers"))]
        for number, (line, mine, peers) in enumerate(zip(lines, *twin.play_both(stages, lines))):
            found = []
            if line.fails != (peers.code != 0):
                found.append(f"{line.text}\n  podman exits with {peers.code}: {peers.out!r} {peers.err!r}")
            if line.area:
                trees = [twin.trees(result) for result in (mine, peers)]
                found += [f"{line.text}\n  {line.area} {text}" for text in
                          twin.compare_trees(line.area, *trees, free=line.free, used=self.areas.setdefault(line.area, set()))]
            elif ((mine.code, twin.plain(mine.out), bool(mine.err))
                  != (peers.code, twin.plain(peers.out), twin.said(peers.err))):
                if line.text in known:
                    self.used.add(line.text)
                else:
                    found.append("\n".join([line.text, *(f"  {name} {result.code} {result.out[:300]!r} {result.err[:300]!r}"
                                                         for name, result in (("kelp  ", mine), ("podman", peers)))]))
            if found:
                self.differences[number] = "\n".join(found)


@pytest.mark.parametrize("name", twin.life_names())
def test_command_lines(both, name, place, request, busybox_archive):
    """The files of tests/e2e/lives: exit status, output and whether something was said must agree, line by line. Podman
    cleans up and writes its events beside its commands: what differed is looked at once more, from the beginning."""
    lines = twin.life(name)
    variables = registries(request, "\n".join(line.text for line in lines))
    play = Play(both, lines, place / "first", variables)
    if play.differences:
        for tool in both:
            emptied(tool, busybox_archive)
        again = Play(both, lines, place / "again", variables)
        differences = [text for number, text in again.differences.items() if number in play.differences]
        assert not differences, "\n".join(differences)
        play = again
    stale = [line.text for line in lines if line.text in twin.allowed("command") and line.text not in play.used]
    stale += [f"{area} {path}" for area, paths in play.areas.items() for path in twin.allowed(area) if path not in paths]
    assert not stale, f"these no longer differ: {stale}"


def test_a_script_of_a_ci_file(both, place):
    """Whole: kelp is held to what this prints in test_real_programs.py."""
    results = []
    for tool, directory in zip(both, ("mine", "peers")):
        stage = twin.Stage(tool, place / directory, {})
        results.append(tool(programs.TOP / "tests/e2e/ci-script.sh", program="/bin/bash", code=None, timeout=300, env=stage.env,
                            cwd=stage.work))
    mine, peers = results
    assert (mine.code, mine.out) == (0, peers.out), f"{mine}\n{peers}"


HOSTS_OPTIONS = {
    "plain": ("--name", "namer"),
    "named": ("--name", "namer", "--hostname", "hosty"),
    "added": ("--name", "namer", "--add-host", "db:10.1.2.3", "--add-host", "six:fd00::7"),
    "dns": ("--name", "namer", "--dns", "192.0.2.7", "--dns", "2001:db8::9", "--dns-search", "example.org", "--dns-search",
            "example.net", "--dns-option", "ndots:3", "--dns-option", "rotate"),
    "no-search": ("--name", "namer", "--dns-search", "."),
}


def names_file(text):
    """/etc/hosts without what differs on purpose: the identifier, and host.containers.internal, whose address podman takes
    from the host and kelp from slirp4netns; host.docker.internal stands beside it since podman 4.4."""
    text = re.sub(r"(?m)^\S+\thost\.containers\.internal( host\.docker\.internal)?$", "<host>\thost.containers.internal", text)
    return re.sub(r"\b[0-9a-f]{12}\b", "<short>", text)


@pytest.mark.parametrize("options", HOSTS_OPTIONS.values(), ids=HOSTS_OPTIONS)
def test_names_files_byte_for_byte(both, options):
    """Without the host's own /etc/hosts, of which kelp takes no 127.*: inside, that would be the container itself."""
    needs.need("tun")
    kelp, podman = both
    (podman.config / "containers/containers.conf").write_text('[containers]\nbase_hosts_file = "none"\n')
    try:
        show = ("--network", "slirp4netns", *options, "busybox", "cat", "/etc/hosts", "/etc/resolv.conf")
        mine, peers = kelp("run", "--rm", "--hosts-file", "none", *show), podman("run", "--rm", *show)
    finally:
        (podman.config / "containers/containers.conf").unlink()
    assert names_file(mine.out) == names_file(peers.out)


def registries(request, text):
    """The variables that the lines use: what it takes to have them is only made where they are."""
    found = {}
    if "$REGISTRY" in text:
        registry = request.getfixturevalue("registry")
        layout = request.getfixturevalue("busybox_layout")
        found["REGISTRY"] = registry.push(f"oci:{layout}:latest", "twin/busybox:1").partition("/")[0]
    if "$LOCKED" in text:
        found["LOCKED"] = request.getfixturevalue("password_registry").address
    return found


def commands():
    """{command: tier} that kelp has to have, without groups of commands."""
    left_out = [line.split("\t") for line in (PARITY / "left_out.tsv").read_text().splitlines() if line and line[0] != "#"]
    later = {command for command, option, kind, _ in left_out if option == "*" and kind == "later"}
    rows = [line.split("\t") for line in (PARITY / "commands.tsv").read_text().splitlines() if line and line[0] != "#"]
    tiers = {name.removeprefix("podman").strip(): int(tier) for name, tier in rows}
    return {name: tier for name, tier in tiers.items()
            if name and not any(name == one or name.startswith(one + " ") for one in later)}


def played():
    """[(line, its commands)] of all lives."""
    known = commands()

    def named(words):
        return next((" ".join(words[:n]) for n in (2, 1) if " ".join(words[:n]) in known), None)
    return [(line, [found for words in line.commands if (found := named(words))])
            for name in twin.life_names() for line in twin.life(name)]


def test_every_command_is_played():
    """A command that works, and one that fails, of each; a template where there is --format."""
    absent, lines = twin.allowed("absent"), played()
    tree = json.loads(subprocess.run([programs.program("kelp"), "__dump-options"], capture_output=True, check=True).stdout)
    formats = {command["name"] for command in tree["commands"] if any(o["name"] == "format" for o in command["options"])}
    groups = {group["name"] for group in tree["groups"]}
    good = {name for line, names in lines for name in names if not line.fails}
    bad = {names[-1] for line, names in lines if line.fails and names}
    templates = {names[-1] for line, names in lines if names and ("--format" in line.text or " -f " in line.text)}
    missing = [f"{name}: nothing that works" for name in commands() if name not in good | groups and name not in absent]
    missing += [f"{name}: nothing that fails" for name in commands() if name not in bad and absent.get(name, "")[:8] != "podman 5"]
    missing += [f"{name}: no template" for name in formats & set(commands()) if name not in templates and name not in absent]
    assert not missing, "\n".join(sorted(missing))


def test_few_differences():
    """None of tier 1 that is not the newer podman's way or forbidden by the kernel or a daemonless design; of tier 2 one
    line in twenty."""
    good = ("podman 5:", "kernel:", "daemonless:")
    tiers, known = commands(), twin.allowed("command")
    unknown = set(known) - {line.text for line, _ in played()}
    assert not unknown, f"no life has these: {unknown}"
    second = [line for line, names in played() if names and tiers[names[-1]] == 2]
    for line, names in played():
        if line.text in known and not known[line.text].startswith(good):
            assert names and tiers[names[-1]] == 2, line.text
        if line.area and (not names or tiers[names[-1]] == 1):
            bad = [path for path, reason in twin.allowed(line.area).items() if not reason.startswith(good)]
            assert not bad, (line.area, bad)
    for name, reason in twin.allowed("absent").items():
        assert reason.startswith(good), name
    differing = [line for line in second if line.text in known]
    assert len(second) > 100 and len(differing) <= 0.05 * len(second), (len(differing), len(second))
