"""Hooks: when and where each kind runs, what it is told, and what its failure does."""

import json
import os
import shutil

import pytest

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
STATUS = {"prestart": {"created", "creating"}, "createRuntime": {"creating", "created"}, "createContainer": {"creating", "created"},
          "startContainer": {"created", "creating"}, "poststart": {"running"}, "poststop": {"stopped"}}


def hook(oci, kind, script='cat >"$1"; readlink /proc/self/ns/mnt >"$1.ns"; echo $(basename "$1") >>"$2"', **more):
    """A hook in the host's file system that writes its state document to the file named after its kind."""
    return {"path": "/bin/sh", "args": ["sh", "-c", script, "hook", str(oci.place / kind), str(oci.place / "order")], **more}


def container_hook(*words, **more):
    """A hook in the container's own file system."""
    return {"path": "/probe", "args": ["probe", *words], **more}


def told(oci, kind):
    return json.loads((oci.place / kind).read_text())


def test_moments_and_states(oci):
    oci.config["annotations"] = {"org.example": "value"}
    oci.config["hooks"] = {kind: [hook(oci, kind)] for kind in KINDS if kind != "startContainer"}
    oci.config["hooks"]["startContainer"] = [container_hook("save", "/tmp/startContainer", ";", "lstat", "/probe")]
    order = oci.place / "order"
    oci.create("wait")
    assert order.read_text().split() == ["prestart", "createRuntime", "createContainer"]
    assert not (oci.rootfs / "tmp/startContainer").exists()
    pid = oci.state()["pid"]
    oci.start()
    oci.output("ready")
    assert order.read_text().split()[3:] == ["poststart"]
    mount_namespace = os.readlink(f"/proc/{pid}/ns/mnt") if not oci.nested else oci.exec("info").json["ns"]["mnt"]
    oci("kill", "c1", "KILL")
    oci.wait_status("stopped")
    oci("delete", "c1")
    assert order.read_text().split()[4:] == ["poststop"]

    (oci.place / "startContainer").write_text((oci.rootfs / "tmp/startContainer").read_text())
    for kind in KINDS:
        state = told(oci, kind)
        assert state["id"] == "c1" and state["status"] in STATUS[kind], (kind, state)
        assert os.path.realpath(state["bundle"]) == os.path.realpath(oci.bundle), kind
        assert state["annotations"]["org.example"] == "value", kind
        assert state["ociVersion"], kind
    # The process as the runtime's own pid namespace knows it.
    for kind in ("prestart", "createRuntime", "poststart"):
        assert told(oci, kind)["pid"] == pid, kind
    inside = {kind: (oci.place / f"{kind}.ns").read_text().strip() == mount_namespace for kind in KINDS
              if kind != "startContainer"}
    assert inside == {"prestart": False, "createRuntime": False, "createContainer": True, "poststart": False,
                      "poststop": False}


def test_prestart_sees_the_new_network(oci):
    """Network hooks reach the container's namespaces through the pid, before anything of the container has run."""
    oci.config["hooks"] = {"prestart": [hook(oci, "net", 'pid=$(sed "s/.*\\"pid\\": *\\([0-9]*\\).*/\\1/"); '
                                                         'readlink "/proc/$pid/ns/net" >"$1"')]}
    inside = oci.info()
    assert (oci.place / "net").read_text().strip() == inside["ns"]["net"]


def test_environment_and_arguments(oci):
    script = 'cat >/dev/null; tr "\\0" "\\n" </proc/self/environ >"$1"; echo "$0 $3" >>"$1"'
    entry = hook(oci, "env", script, env=["A=1", "B=two words"])
    entry["args"].append("last")
    oci.config["hooks"] = {"createRuntime": [entry]}
    oci.run("exit", "0")
    assert (oci.place / "env").read_text().splitlines() == ["A=1", "B=two words", "hook last"]


def test_no_host_variable_leaks_into_the_container(oci):
    oci.process["env"] = ["PATH=/bin", "HOME=/", "OWN=1"]
    oci.config["hooks"] = {"startContainer": [container_hook("save", "/tmp/state", ";", "saveenv", "/tmp/env")]}
    oci.run("exit", "0", env={"HOST_SECRET": "x"})
    assert "HOST_SECRET" not in (oci.rootfs / "tmp/env").read_text()


def test_hooks_run_in_their_order(oci):
    oci.config["hooks"] = {"createRuntime": [hook(oci, name) for name in ("one", "two", "three")]}
    oci.run("exit", "0")
    assert (oci.place / "order").read_text().split() == ["one", "two", "three"]


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_failure_ends_the_creation(oci, kind):
    oci.config["hooks"] = {kind: [hook(oci, kind, "echo it went wrong >&2; exit 3"), hook(oci, "later")]}
    oci.write_config()
    oci.started.append("c1")
    done = oci("create", "--bundle", oci.bundle, "c1", code=None)
    assert done.code != 0, str(done)
    assert not (oci.place / "later").exists(), "the hooks after it must not run"
    assert oci("state", "c1", code=None).code != 0, "the container must be gone"


def test_failure_names_the_hook(kelp_oci):
    kelp_oci.config["hooks"] = {"createRuntime": [hook(kelp_oci, "x"), hook(kelp_oci, "y", "echo it went wrong >&2; exit 3")]}
    done = kelp_oci.run("exit", "0", code=None)
    line = done.err.splitlines()[0]
    assert "createRuntime" in line and "#1" in line and "/bin/sh" in line and "3" in line and "it went wrong" in line


def test_failure_of_start_container_stops_it(oci):
    oci.config["hooks"] = {"startContainer": [container_hook("exit", "4")]}
    oci.create("append", "/tmp/ran", "yes")
    assert oci("start", "c1", code=None).code != 0
    oci.wait_status("stopped")
    assert not (oci.rootfs / "tmp/ran").exists()


def test_poststart_does_not_overtake_the_program(kelp_oci):
    """Where kelp-oci runs as a copy in memory, whoever lets go of it last waits while the kernel frees it. That is `start`,
    after its hooks, and not the container's program, whose first steps would come after theirs."""
    oci = kelp_oci
    shutil.copy(oci.base[0], oci.place / "kelp-oci")  # one of our own is not out of the container's reach
    oci.base[0] = str(oci.place / "kelp-oci")
    held = hook(oci, "held", 'for fd in "/proc/$PPID/fd/"*; do stat -L -c "%d %i" "$fd"; done >"$1"')
    oci.config["hooks"] = {"poststart": [held]}
    oci.create("wait")
    program = os.stat(f"/proc/{oci.state()['pid']}/exe")
    oci.start()
    assert f"{program.st_dev} {program.st_ino}" in (oci.place / "held").read_text().splitlines()


def test_failure_of_poststart_is_a_warning(oci):
    """Up to version 1.2 of the specification; runc has always ended the container."""
    oci.config["hooks"] = {"poststart": [hook(oci, "first", "exit 1"), hook(oci, "second")]}
    oci.create("wait")
    oci("start", "c1", code=None)
    oci.output("ready")
    assert oci.state()["status"] == "running"


def test_failure_of_poststop_is_a_warning(oci):
    oci.config["hooks"] = {"poststop": [hook(oci, "first", "exit 1"), hook(oci, "second")]}
    oci.create("wait")
    oci("delete", "--force", "c1")
    assert oci("state", "c1", code=None).code != 0
    assert (oci.place / "second").exists()


def test_poststop_sees_the_container_gone(oci):
    """The resources are deleted by then; the state is what it was."""
    oci.config["hooks"] = {"poststop": [hook(oci, "poststop")]}
    oci.create("wait")
    pid = oci.state()["pid"]
    oci.start()
    oci("kill", "c1", "KILL")
    oci.wait_status("stopped")
    oci("delete", "c1")
    assert told(oci, "poststop")["status"] == "stopped" and not os.path.exists(f"/proc/{pid}/root/probe")


def test_timeout(oci):
    """The time-out fails the creation long before the hook would end, and the hook is killed."""
    oci.config["hooks"] = {"createRuntime": [hook(oci, "slow", 'echo $$ >"$1"; exec sleep 1000', timeout=1)]}
    oci.write_config()
    oci.started.append("c1")
    assert oci("create", "--bundle", oci.bundle, "c1", code=None).code != 0
    pid = int((oci.place / "slow").read_text())
    assert not os.path.exists(f"/proc/{pid}"), "the hook still runs"


def test_missing_program(oci):
    oci.config["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
    done = oci.run("exit", "0", code=None)
    assert done.code != 0 and "/no/such/hook" in done.err, str(done)


def test_state_larger_than_a_pipe(oci):
    """A hook that does not read its stdin must not block a state document of more than a pipe holds."""
    oci.config["annotations"] = {f"org.example.{i}": "x" * 1000 for i in range(200)}
    oci.config["hooks"] = {"createRuntime": [hook(oci, "big"), {"path": "/bin/true"}]}
    oci.run("exit", "0")
    assert len(told(oci, "big")["annotations"]) >= 200
