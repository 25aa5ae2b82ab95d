#!/usr/bin/env python3
"""Runs the validation programs of OCI runtime-tools against a runtime and prints one line per program.

    run.py SUITE RUNTIME [--jobs N] [--only NAME…] [--json FILE|-] [--log DIR]

SUITE is what ./build made. RUNTIME is a path, with arguments where it needs some ("crun --root /run/x").
The verdict of a program is "pass", "skip REASON" (its only points were skips) or "fail REASON": a point that is
"not ok" without TODO, an error among the diagnostics of a program that makes no points (the hook programs tell only of
what went wrong), an exit status other than 0, no plan at all, or no end within the time-out.
"""
import argparse
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile

TIMEOUT = 60

# These make no points when they are content: creating the container must have failed, because of this word.
SILENT = {"process_rlimits_fail": "RLIMIT_TEST", "process_capabilities_fail": "CAP_TEST"}


# These wait for ten seconds and more; begun first, they do so beside the others.
LONG = ("delete", "linux_ns_path", "kill", "pidfile", "linux_rootfs_propagation", "linux_cgroups_memory")

# What these want depends on the container's shell being quicker than the next process: a poststart hook, which runs when
# the shell has been executed, on the shell's first output; kill on the end of true(1). Each of them takes less than a
# second when it fails so. They are run again, alone, until they pass, since a runtime that is wrong never passes them.
RACY = {"kill": 2, "killsig": 8, "poststart": 12}

# Stands for the runtime. killsig signals a shell as soon as it is "running", which a quick runtime says before the shell
# has set its trap: such a signal waits until it would be caught.
WRAPPER = """#!/bin/sh
case "$1 $3" in
  "kill TERM") bit=14 ;;
  "kill USR1") bit=9 ;;
  "kill USR2") bit=11 ;;
  *) bit= ;;
esac
if [ "$bit" ]; then
  pid=$({runtime} --root {work}/state state "$2" | sed -n 's/.*"pid": *\\([0-9]*\\).*/\\1/p')
  tries=0
  while [ "$tries" -lt 100 ]; do
    caught=$(sed -n 's/^SigCgt:[[:space:]]*/0x/p' "/proc/${{pid:-0}}/status" 2>/dev/null)
    [ $((${{caught:-0}} >> bit & 1)) = 0 ] || break
    tries=$((tries + 1))
    sleep 0.05
  done
fi
exec {runtime} --root {work}/state "$@"
"""


def verdict(text: str, status, silent: str = "") -> str:
    points = re.findall(r"^(ok|not ok)\b(.*)$", text, re.M)
    failed = [rest for word, rest in points if word == "not ok" and "# TODO" not in rest]
    if status is None:
        return "fail time-out"
    if failed:
        return "fail " + failed[0].strip()[:100]
    if status != 0:
        return f"fail exit status {status}"
    if not points:
        error = re.search(r'"error": "(.*?)(\\n|")', text)
        if error:
            return "fail " + error[1][:100]
        return "pass" if "1..0" in text or (silent and silent in text) else "fail no plan"
    if all("# SKIP" in rest for _, rest in points):
        return "skip " + points[0][1].split("# SKIP", 1)[1].strip()[:100]
    return "pass"


def run_program(suite: str, name: str, runtime: str, log: str) -> str:
    # Short, and readable for an id-mapped root: some runtimes walk down to the bundle as another id.
    work = tempfile.mkdtemp(prefix="conf-", dir="/tmp")
    os.chmod(work, 0o755)
    try:
        for file in ("runtimetest", "rootfs-amd64.tar.gz"):
            shutil.copy(os.path.join(suite, file), work)  # the programs copy it on: a link would dangle
        wrapper = os.path.join(work, "runtime")
        with open(wrapper, "w") as out:
            out.write(WRAPPER.format(runtime=runtime, work=work))
        os.chmod(wrapper, 0o755)
        env = dict(os.environ, RUNTIME=wrapper, TMPDIR=work)
        process = subprocess.Popen([os.path.join(suite, "bin", name)], cwd=work, env=env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            output, _ = process.communicate(timeout=TIMEOUT)
            status = process.returncode
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
            status = None
        text = output.decode(errors="replace")
        if log:
            with open(os.path.join(log, name), "w") as out:
                out.write(text)
        return verdict(text, status, SILENT.get(name, ""))
    finally:
        # Programs that fail forget their containers.
        left = subprocess.run([wrapper, "list", "-q"], capture_output=True, text=True, check=False).stdout.split()
        for container in left:
            subprocess.run([wrapper, "delete", "--force", container], capture_output=True, check=False)
        subprocess.run(["chmod", "-R", "u+rwx", work], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(work, ignore_errors=True)


def run_suite(suite: str, runtime: str, only=(), jobs=2, log="") -> dict:
    """{program: verdict} of every program, or of those named in `only`."""
    names = sorted(only or os.listdir(os.path.join(suite, "bin")), key=lambda name: (name not in LONG, name))
    if log:
        os.makedirs(log, exist_ok=True)
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        results = dict(zip(names, pool.map(lambda name: run_program(suite, name, runtime, log), names)))
    # One that ran out of time on a busy host says nothing yet: again, alone.
    for name in [name for name in names if results[name] == "fail time-out"]:
        results[name] = run_program(suite, name, runtime, log)
    for name, tries in RACY.items():
        while tries > 0 and results.get(name, "pass") != "pass":
            results[name], tries = run_program(suite, name, runtime, log), tries - 1
    return results


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("suite")
    parser.add_argument("runtime")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--json")
    parser.add_argument("--log", default="")
    args = parser.parse_args()
    program = shlex.split(args.runtime)[0]
    if not shutil.which(program):
        sys.exit(f"{program}: not found")
    results = run_suite(args.suite, args.runtime, args.only, args.jobs, args.log)
    if args.json == "-":
        json.dump(results, sys.stdout)
        return 0
    for name, result in results.items():
        print(f"{name:32} {result}")
    print(f"{sum(r == 'pass' for r in results.values())} of {len(results)} programs pass")
    if args.json:
        with open(args.json, "w") as out:
            json.dump(results, out, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
