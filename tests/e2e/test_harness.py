"""The harness itself: that it sees what was left behind, and that its images and registry are sound."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time

import pytest

from harness import leaks, processes, programs


def test_an_orphan_is_seen_and_can_be_killed():
    baseline = leaks.Baseline()
    subprocess.run(["sh", "-c", "sleep 100 & exit 0"], check=True)
    assert "sleep 100" in baseline.check([], seconds=0.05)
    processes.kill_all()
    assert baseline.check([], seconds=0.05) == ""


def test_a_process_that_ends_in_time_is_no_leak():
    baseline = leaks.Baseline()
    subprocess.run(["sh", "-c", "setsid sleep 0.2 & exit 0"], check=True)
    assert baseline.check([], seconds=1) == ""


def test_a_process_in_a_user_namespace_is_seen():
    baseline = leaks.Baseline()
    subprocess.run(["sh", "-c", "setsid unshare -Ur sleep 100 >/dev/null 2>&1 & exit 0"], check=True)
    time.sleep(0.2)
    left = baseline.check([], seconds=0.05)
    processes.kill_all()
    assert "sleep 100" in left


@pytest.mark.parametrize("what", ["file", "temporary", "socket", "state", "trash", "name", "layer", "mount"])
def test_what_a_test_leaves_is_named(place, request, what):
    """Files of shared directories, kelp's own ones, and a mount."""
    baseline, kelp = leaks.Baseline(), programs.Kelp(place)
    assert baseline.check([kelp], seconds=0.05) == ""
    shared = pathlib.Path(f"/dev/shm/kelp-test-harness-{os.getpid()}")
    paths = {"file": shared, "temporary": kelp.temporary / "x", "socket": kelp.run_dir / "s.sock", "state": kelp.run_dir / ("ab" * 32),
             "trash": kelp.store / "trash/x", "name": kelp.store / "names/x", "layer": kelp.store / "layers/.tmp-x",
             "mount": kelp.dir / "m"}
    path = paths[what]
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        if what == "socket":
            with socket.socket(socket.AF_UNIX) as left:
                left.bind(str(path))
        elif what in ("state", "mount"):
            path.mkdir()
        else:
            path.write_text("x")
        if what == "mount":
            agent = request.getfixturevalue("agent")
            agent("mount", path=str(path), size="1m")
            try:
                assert f"mount {path}" in baseline.check([kelp], seconds=0.05)
            finally:
                agent("unmount", path=str(path))
            assert baseline.check([kelp], seconds=0.05) == ""
        else:
            assert str(path) in baseline.check([kelp], seconds=0.05)
    finally:
        shared.unlink(missing_ok=True)


UNEXPECTED = """
import pytest
from harness import needs

def test_of_something_else():
    pass

def test_that_skips():
    {}
"""


@pytest.mark.parametrize("skip, ci, status", [
    ('needs.skip("a-need-that-nobody-lists")', True, 1), ('pytest.skip("so")', True, 1), ('needs.skip("cgroup-limits", "none")', True, 0),
    ('needs.skip("a-need-that-nobody-lists")', False, 0)], ids=["unlisted", "nameless", "listed", "by-hand"])
def test_a_skip_that_nobody_expects_fails_the_run(place, skip, ci, status):
    (place / "test_skips.py").write_text(UNEXPECTED.format(skip))
    env = {name: value for name, value in os.environ.items() if name != "CI"} | ({"CI": "true"} if ci else {})
    tests = programs.TOP / "tests"
    done = subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "conftest", "--rootdir", place, "-c", "/dev/null",
                           place / "test_skips.py"], env={**env, "PYTHONPATH": str(tests)}, capture_output=True, text=True)
    assert done.returncode == status and "1 passed, 1 skipped" in done.stdout, done.stdout
    assert ("skips that tests/expected-skips.txt does not list" in done.stdout) == (status == 1 or not ci), done.stdout


def test_skopeo_reads_our_images(registry, busybox_layout):
    name = registry.push(f"oci:{busybox_layout}:latest", "busybox:1")
    done = subprocess.run(["skopeo", "inspect", "--tls-verify=false", f"docker://{name}"], check=True,
                          capture_output=True, text=True)
    index = json.loads((busybox_layout / "index.json").read_text())
    manifest = (busybox_layout / "blobs/sha256" / index["manifests"][0]["digest"].split(":")[1]).read_text()
    assert json.loads(done.stdout)["Layers"] == [layer["digest"] for layer in json.loads(manifest)["layers"]]


def test_the_client_lives_in_another_network(agent):
    client, host = agent("address")
    listener = subprocess.Popen(["python3", "-m", "http.server", "0", "--bind", host], stdout=subprocess.PIPE,
                                stderr=subprocess.STDOUT, text=True, env={"PYTHONUNBUFFERED": "1", "PATH": "/usr/bin"})
    try:
        port = listener.stdout.readline().split(" port ")[1].split()[0]
        assert "Directory listing" in agent("fetch", url=f"http://{host}:{port}/")
        assert listener.stdout.readline().startswith(client)
    finally:
        listener.kill()
        listener.wait()
        listener.stdout.close()
