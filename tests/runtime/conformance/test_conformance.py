"""The validation programs of OCI runtime-tools, against kelp-oci and beside it crun and runc, as an ordinary user and as
root (through the root agent, in a pure cgroup v2 view).

verdicts.txt names every program of the suite with what kelp-oci makes of it in each role, and, where that is not "pass",
why nobody can pass it there. A program that fails or is skipped and is not listed so fails the run; so does one that a
peer passes in the same role and kelp-oci does not, whatever the list says.
"""

import concurrent.futures
import itertools
import json
import os
import pathlib
import subprocess
import sys

import pytest

from harness import needs, programs, root_agent

HERE = pathlib.Path(__file__).parent
ROLES = ("user", "root")
PEERS = ("crun", "runc")
SECONDS = 1500
JOBS = {"kelp-oci": 6, "crun": 3, "runc": 3}  # programs at a time, for each of the two roles
FULL = os.environ.get("KELP_TEST_FULL") == "1"


def _listed():
    """{program: {role: word}}; a word is pass, suite, host, kernel, old-spec or timing."""
    lines = (line.split("#")[0].split() for line in (HERE / "verdicts.txt").read_text().splitlines())
    return {words[0]: dict(zip(ROLES, words[1:3])) for words in lines if words}


LISTED = _listed()


@pytest.fixture(scope="session")
def suite():
    cache = pathlib.Path(os.environ.get("KELP_TEST_CACHE") or pathlib.Path.home() / ".cache/kelp-test")
    directory = cache / "oci-runtime-tools"
    needs.need("program:go")
    needs.need("program:apt-get")
    done = subprocess.run([HERE / "build", directory], capture_output=True, text=True)
    if done.returncode == 77:
        needs.skip("runtime-tools", done.stderr.strip()[-200:])
    assert done.returncode == 0, done.stderr[-4000:]
    return directory


class Verdicts:
    """{program: verdict} by role and runtime. Each is asked for once, and all that can go on beside each other does: much of
    a program's time is sleep.

    A peer runs what kelp-oci does not pass, which is all that can tell against it; with KELP_TEST_FULL=1 it runs all.
    """

    def __init__(self, suite):
        self.suite, self.pool, self.asked = suite, concurrent.futures.ThreadPoolExecutor(), {}
        self.agent = os.environ.get("KELP_TEST_ROOT_AGENT")
        self.roles = ROLES if self.agent else ROLES[:1]

    def of(self, role, runtime):
        beside = ["kelp-oci"] if runtime == "kelp-oci" else [peer for peer in PEERS if needs.find_program(peer)]
        for entry in itertools.product(self.roles, beside):
            if entry not in self.asked:
                self.asked[entry] = self.pool.submit(self._run, *entry)
        return self.asked[role, runtime].result()

    def _run(self, role, runtime):
        if runtime == "kelp-oci":
            program, only = programs.program(runtime), []
        else:
            ours = self.of(role, "kelp-oci")
            program = needs.find_program(runtime)
            only = [] if FULL else [name for name, verdict in ours.items()
                                    if verdict != "pass" and LISTED[name][role] != "timing"]
            if not only and not FULL:
                return {}
        if self.agent:
            return root_agent.Agent(self.agent)("conformance", timeout=SECONDS, role=role, suite=str(self.suite),
                                                runtime=program, only=only, jobs=JOBS[runtime])
        done = subprocess.run([sys.executable, HERE / "run.py", self.suite, program, "--jobs", str(JOBS[runtime]), "--json", "-",
                               "--only", *only], stdout=subprocess.PIPE, timeout=SECONDS, check=True)
        return json.loads(done.stdout)


@pytest.fixture(scope="session")
def verdicts(suite):
    return Verdicts(suite)


@pytest.fixture(params=ROLES)
def role(request):
    if request.param == "root":
        needs.need("root-agent")
    return request.param


def test_all_programs_are_listed(suite):
    built = {path.name for path in (suite / "bin").iterdir()}
    assert len(built) >= 55
    assert built == set(LISTED)


@pytest.mark.parametrize("program", sorted(LISTED))
def test_program(verdicts, role, program):
    verdict, listed = verdicts.of(role, "kelp-oci")[program], LISTED[program][role]
    if verdict == "pass":
        assert listed in ("pass", "timing", "host"), f"it passes: verdicts.txt says {listed}"
    else:
        assert listed != "pass", verdict


@pytest.mark.parametrize("peer", PEERS)
def test_peer_passes_nothing_more(verdicts, role, peer):
    needs.need(f"program:{peer}")
    ours, theirs = verdicts.of(role, "kelp-oci"), verdicts.of(role, peer)
    more = [program for program, verdict in theirs.items()
            if verdict == "pass" and ours[program] != "pass" and LISTED[program][role] != "timing"]
    print(f"{peer} as {role}: {sum(verdict == 'pass' for verdict in theirs.values())} of {len(theirs)} pass,"
          f" kelp-oci {sum(verdict == 'pass' for verdict in ours.values())} of {len(ours)}")
    assert more == [], f"{peer} passes what kelp-oci does not: {[(name, ours[name]) for name in more]}"
