#!/usr/bin/env python3
"""kelp-oci beside crun, runc and bwrap, with one bundle for all: a static busybox and all namespaces.

compare.py calls rows(). Inside a user namespace that is there already, a copy of this program does the work:

    runtimes.py BUNDLE STATE ROUNDS      medians in milliseconds and peak memory in KB, as one line of JSON
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent.parent), str(pathlib.Path(__file__).resolve().parent)]

from harness import needs, programs  # noqa: E402
import measure  # noqa: E402


def write_bundle(directory, rootfs, args, maps=None):
    """config.json as `crun spec` writes it, all namespaces new, no terminal, no limits. maps: (own id, first, count)."""
    directory.mkdir()
    subprocess.run(["crun", "spec"], cwd=directory, check=True)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["root"] = {"path": str(rootfs), "readonly": False}
    config["process"] |= {"terminal": False, "args": args}
    config["linux"].pop("resources", None)
    kinds = ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    if maps:
        kinds.append("user")
        for key, (own, first, count) in maps.items():
            config["linux"][key] = [{"containerID": 0, "hostID": own, "size": 1},
                                    {"containerID": 1, "hostID": first, "size": count}]
    config["linux"]["namespaces"] = [{"type": kind} for kind in kinds]
    path.write_text(json.dumps(config))
    return directory


def own_maps():
    """The caller's full map, or None when he has no subordinate ids."""
    names = (str(os.getuid()), os.environ.get("USER", ""))

    def first_range(path):
        for line in pathlib.Path(path).read_text().splitlines():
            name, first, count = line.split(":")
            if name in names:
                return int(first), int(count)
        return None
    uids, gids = first_range("/etc/subuid"), first_range("/etc/subgid")
    if not uids or not gids:
        return None
    return {"uidMappings": (os.getuid(), *uids), "gidMappings": (os.getgid(), *gids)}


def runtimes(state):
    """Command lines of those that are installed. No control groups: crun and kelp-oci can be told so, and an ordinary
    user's runc goes on without."""
    found = {"kelp": [programs.program("kelp-oci"), "--root", f"{state}/kelp", "--cgroup-manager", "disabled"]}
    if needs.find_program("crun"):
        found["crun"] = ["crun", "--root", f"{state}/crun", "--cgroup-manager", "disabled"]
    if needs.find_program("runc"):
        found["runc"] = [needs.find_program("runc"), "--root", f"{state}/runc"]
    return found


def run_once(argv, bundle, directory):
    return measure.timed([*argv, "run", "-b", str(bundle), "bench"], os.environ, directory)


def life(argv, bundle, directory, samples):
    """create, start, state, delete of one container, each timed."""
    def step(name, *arguments):
        samples.setdefault(name, []).append(measure.timed([*argv, *arguments], os.environ, directory))
    step("create", "create", "-b", str(bundle), "life")
    step("start", "start", "life")
    step("state", "state", "life")
    subprocess.run([*argv, "kill", "life", "KILL"], check=True, stdin=subprocess.DEVNULL)
    for _ in range(1000):
        text = subprocess.run([*argv, "state", "life"], check=True, capture_output=True, text=True).stdout
        if json.loads(text)["status"] == "stopped":
            break
        time.sleep(0.002)
    step("delete", "delete", "life")


def peak_of_create(argv, bundle):
    """The largest resident set of the processes of one create, in KB, by busybox's `time`: our own would count with a
    child of this program."""
    said = bundle.parent / "time"  # no pipe: the container would keep it open
    subprocess.run(["busybox", "time", "-v", "-o", str(said), *argv, "create", "-b", str(bundle), "life"], check=True,
                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([*argv, "delete", "--force", "life"], check=True)
    for line in said.read_text().splitlines():
        if "Maximum resident set size" in line:
            return int(line.split()[-1])
    raise RuntimeError("busybox time names no resident set size")


def measure_all(bundles, state, rounds):
    """{"run": {tool: ms}, "life": {tool: {step: ms}}, "peak": {tool: KB}, "broken": {tool: why}}"""
    tools, broken = runtimes(state), {}
    runner, sleeper = bundles / "true", bundles / "sleep"
    for name in list(tools):
        try:
            run_once(tools[name], runner, bundles)
            life(tools[name], sleeper, bundles, {})
        except (RuntimeError, subprocess.CalledProcessError) as error:
            broken[name] = str(error)
            del tools[name]
    candidates = {name: (lambda argv=argv: run_once(argv, runner, bundles)) for name, argv in tools.items()}
    rootfs = json.loads((runner / "config.json").read_text())["root"]["path"]
    if needs.find_program("bwrap"):
        argv = ["bwrap", "--unshare-all", "--bind", rootfs, "/", "--proc", "/proc", "--dev", "/dev", "true"]
        candidates["bwrap"] = lambda: measure.timed(argv, os.environ, bundles)
    result = {"run": measure.medians(rounds, **candidates), "life": {}, "peak": {}, "broken": broken}
    samples = {name: {} for name in tools}
    for _ in range(rounds):
        for name, argv in tools.items():
            life(argv, sleeper, bundles, samples[name])
    for name, argv in tools.items():
        result["life"][name] = {step: statistics.median(times) for step, times in samples[name].items()}
        result["peak"][name] = statistics.median(peak_of_create(argv, sleeper) for _ in range(5))
    return result


def rows(table, place, state, rootfs, rounds, env):
    if not needs.find_program("crun"):
        return table.skip("kelp-oci / crun", "crun is not installed")
    bundles = place / "bundles"
    bundles.mkdir()
    write_bundle(bundles / "true", rootfs, ["true"])
    write_bundle(bundles / "sleep", rootfs, ["sleep", "100000"])
    done = subprocess.run(["unshare", "--user", "--map-root-user", "--map-auto", "--mount", sys.executable, __file__,
                           str(bundles), str(state), str(rounds)], capture_output=True, text=True, env=env,
                          stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        return table.skip("kelp-oci / crun", f"a user namespace to run them in: {done.stderr.strip()[-200:]}")
    inside = json.loads(done.stdout)
    if "crun" in inside["run"] and "kelp" in inside["run"]:
        table.at_most("kelp-oci run, inside a user namespace", inside["run"]["kelp"], inside["run"]["crun"], 0.6)
        for step, factor in (("create", 0.6), ("start", 0.6), ("state", 0.4), ("delete", 0.4)):
            table.at_most(f"kelp-oci {step}", inside["life"]["kelp"][step], inside["life"]["crun"][step], factor)
        table.at_most("peak memory of create, KB", inside["peak"]["kelp"], inside["peak"]["crun"], 1.0)
    else:
        table.skip("kelp-oci / crun, inside a user namespace", json.dumps(inside["broken"]))
    for name in ("runc", "bwrap"):
        if name in inside["run"]:
            table.fact(f"  for scale: {name}, inside a user namespace", inside["run"][name])

    maps = own_maps()
    if not maps:
        return table.skip("kelp-oci run, new full map", "no subordinate ids")
    bundle = write_bundle(bundles / "mapped", rootfs, ["true"], maps)
    candidates = {}
    for name, argv in runtimes(state).items():
        call = (lambda argv=argv: measure.timed([*argv, "run", "-b", str(bundle), "mapped"], env, place))
        try:
            call()
            candidates[name] = call
        except RuntimeError as error:
            print(f"{name} with a new full map: {error}")
    result = measure.medians(rounds, **candidates)
    if "crun" in result and "kelp" in result:
        table.at_most("kelp-oci run, new full map", result["kelp"], result["crun"], 0.75)
    else:
        table.skip("kelp-oci run, new full map", "kelp-oci or crun cannot run here")
    if "runc" in result:
        table.fact("  for scale: runc, new full map", result["runc"])


if __name__ == "__main__":
    measure.adopt_orphans()
    print(json.dumps(measure_all(pathlib.Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))))
