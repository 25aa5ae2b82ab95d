"""create, start, state, kill, delete, exec, list, ps."""

import json
import os
import time

import pytest


def test_create_start_delete(oci):
    oci.create("echo", "ran", ";", "wait")
    state = oci.state()
    assert state["status"] == "created" and state["id"] == "c1" and state["pid"] > 0
    assert os.path.realpath(state["bundle"]) == os.path.realpath(oci.bundle)
    assert oci.output() == ""
    oci.start()
    oci.output("ready")
    assert oci.state()["status"] == "running"
    oci("kill", "c1", "TERM")
    oci.wait_status("stopped")
    oci("delete", "c1")
    assert oci("state", "c1", code=None).code != 0


def test_delete_of_a_running_one_needs_force(oci):
    oci.create("wait")
    oci.start()
    oci.output("ready")
    assert oci("delete", "c1", code=None).code != 0
    assert oci.state()["status"] == "running"
    oci("delete", "--force", "c1")
    assert oci("state", "c1", code=None).code != 0


def test_delete_of_a_created_one(oci):
    oci.create("echo", "never")
    oci("delete", "--force", "c1")
    assert oci.output() == ""


def test_start_twice(oci):
    oci.create("wait")
    oci.start()
    oci.output("ready")
    assert oci("start", "c1", code=None).code != 0
    assert oci.state()["status"] == "running"


def test_same_id_twice(oci):
    oci.create("wait")
    assert oci("create", "--bundle", oci.bundle, "c1", code=None).code != 0
    assert oci.state()["status"] == "created"


@pytest.mark.parametrize("bad", ["../x", "a/b", ""])
def test_bad_ids(oci, bad):
    oci.write_config()
    assert oci("create", "--bundle", oci.bundle, bad, code=None).code != 0


def test_kill_takes_names_and_numbers(oci):
    oci.create("wait")
    oci.start()
    oci.output("ready")
    oci("kill", "c1", "10")
    oci.wait_status("stopped")


def test_pid_file(oci):
    oci.create("wait", args=("--pid-file", oci.place / "pid"))
    assert int((oci.place / "pid").read_text()) == oci.state()["pid"]


def test_list(oci):
    oci.create("wait")
    listed = json.loads(oci("list", "--format", "json").out)
    assert [(entry["id"], entry["status"]) for entry in listed] == [("c1", "created")]
    assert oci("list", "-q").lines == ["c1"]


def test_exec(oci):
    oci.process["user"] = {"uid": 5, "gid": 5}
    oci.create("wait")
    oci.start()
    oci.output("ready")
    inside = oci.exec("info").json
    pid = oci.state()["pid"]
    for name in ("mnt", "pid", "net", "ipc", "uts", "user"):
        assert inside["ns"][name] == os.readlink(f"/proc/{pid}/ns/{name}") if not oci.nested else inside["ns"][name]
    assert inside["hostname"] == "box" and inside["NoNewPrivs"] == "1"
    assert oci.exec("exit", "9", code=9).code == 9


def test_exec_options(oci):
    (oci.rootfs / "work").mkdir()
    oci.create("wait")
    oci.start()
    oci.output("ready")
    info = oci.exec("info", args=("--user", "3:4", "--cwd", "/work", "--env", "X=y")).json
    assert info["uids"][0] == 3 and info["gids"][0] == 4 and info["cwd"] == "/work" and "X=y" in info["env"]


def test_exec_of_a_process_file(oci):
    oci.create("wait")
    oci.start()
    oci.output("ready")
    process = {"cwd": "/", "args": ["/probe", "info"], "env": ["P=q"], "user": {"uid": 9, "gid": 9},
               "noNewPrivileges": True, "capabilities": {}}
    (oci.place / "process.json").write_text(json.dumps(process))
    info = oci("exec", "--process", oci.place / "process.json", "c1").json
    assert info["uids"] == [9, 9, 9] and "P=q" in info["env"] and info["CapBnd"] == "0" * 16


def test_exec_in_a_stopped_one(oci):
    oci.create("exit", "0")
    oci.start()
    oci.wait_status("stopped")
    assert oci.exec("info", code=None).code not in (0, None)


def test_annotations_in_state(oci):
    oci.config["annotations"] = {"org.example": "value"}
    oci.create("wait")
    assert oci.state()["annotations"]["org.example"] == "value"


def test_killed_init_is_stopped(oci):
    oci.create("wait")
    oci.start()
    oci.output("ready")
    oci("kill", "c1", "KILL")
    oci.wait_status("stopped")


def test_many_at_once(kelp_oci):
    import subprocess
    kelp_oci.process["args"] = ["/probe", "exit", "3"]
    kelp_oci.write_config()
    children = [subprocess.Popen([*kelp_oci.base, "run", "--bundle", str(kelp_oci.bundle), f"m{i}"], env=kelp_oci.env,
                                 stdin=subprocess.DEVNULL) for i in range(12)]
    assert [child.wait(timeout=30) for child in children] == [3] * 12


def test_killed_runtime_leaves_nothing(kelp_oci):
    """SIGKILL of `run` at several moments: the next commands work and delete clears up."""
    import subprocess
    kelp_oci.process["args"] = ["/probe", "sleep", "30"]
    kelp_oci.write_config()
    for i, delay in enumerate((0.0, 0.002, 0.005, 0.01, 0.02, 0.05)):
        id = f"k{i}"
        child = subprocess.Popen([*kelp_oci.base, "run", "--bundle", str(kelp_oci.bundle), id], env=kelp_oci.env,
                                 stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(delay)
        child.kill()
        child.wait()
        kelp_oci("delete", "--force", id, code=None)
        assert kelp_oci.run("exit", "0", id=f"n{i}").code == 0
    assert json.loads(kelp_oci("list", "--format", "json").out or "[]") in ([], None)
