"""A test of a peer has a second try, from the beginning, and is named for it; one of kelp-oci has none."""

import os
import pathlib
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
PLAYED = """
import pathlib
import pytest
HERE = pathlib.Path(__file__).parent

@pytest.fixture
def tries(runtime_name, request):
    with open(HERE / f"{request.function.__name__}.{runtime_name}", "a+") as log:
        log.write("made ")
        log.flush()
        log.seek(0)
        yield log.read().split()
        log.write("ended ")

def test_passes_the_second_time(tries):
    assert tries == ["made", "ended", "made"]

def test_never_passes(tries):
    assert False

def test_passes(tries):
    assert tries == ["made"]
"""


def test_peers_have_a_second_try(place):
    (place / "test_played.py").write_text(PLAYED)
    env = {**os.environ, "RUNTIME": "kelp-oci,kelp-oci-nested,crun,runc", "PYTHONPATH": f"{HERE}:{HERE.parent}"}
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "conftest", "--rootdir", place,
                           "-c", "/dev/null", "-rfp", place / "test_played.py"], env=env, capture_output=True, text=True)
    lines = done.stdout.splitlines()
    results = {tuple(line.split("test_played.py::")[1].split()[0].rstrip("]").split("[")): line.split()[0]
               for line in lines if line.startswith(("PASSED ", "FAILED "))}
    named = {line.split("::")[1] for line in lines if line.startswith("test_played.py::") and line.endswith("]")}
    for runtime in ("kelp-oci", "kelp-oci-nested", "crun", "runc"):
        peer = runtime in ("crun", "runc")
        expected = {"test_passes": ("PASSED", 1), "test_passes_the_second_time": ("PASSED", 2) if peer else ("FAILED", 1),
                    "test_never_passes": ("FAILED", 2 if peer else 1)}
        for test, (result, tries) in expected.items():
            assert results[test, runtime] == result, done.stdout
            assert (place / f"{test}.{runtime}").read_text() == "made ended " * tries, done.stdout
            assert (f"{test}[{runtime}]" in named) == (tries == 2), done.stdout
    assert "6 failed, 6 passed" in lines[-1], done.stdout
