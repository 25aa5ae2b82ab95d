"""The harness itself: that it sees what was left behind, and that its images and registry are sound."""

import json
import subprocess
import time

from harness import leaks, processes


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
