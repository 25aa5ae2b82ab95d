"""kelp in a container of an engine that knows nothing of it: uid 0 there, with no more rights than the outer user has.

The outer container sees the host's /usr and the build tree read-only. What the outer engine withholds decides the level
(ARCHITECTURE.md, "Levels").
"""

import json
import os
import pathlib
import shlex
import subprocess

import pytest

from harness import confine, needs
from harness.programs import build_dir

PROFILE = pathlib.Path("/usr/share/containers/seccomp.json")
OPEN = ("--security-opt", "seccomp=unconfined", "--security-opt", "unmask=ALL")


@pytest.fixture(autouse=True)
def _needs():
    needs.need("subids")


@pytest.fixture
def outer_root(place, busybox_archive):
    """A root file system whose programs are the host's."""
    root = place / "root"
    for name in ("usr", "etc", "tmp", "root", "proc", "sys", "dev", "run", "var/tmp", "nest"):
        (root / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        if pathlib.Path("/", name).is_symlink():
            (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
    (root / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
    for name in ("subuid", "subgid"):
        (root / "etc" / name).write_text("root:1:60000\n")
    (root / "nest/busybox.tar").write_bytes(pathlib.Path(busybox_archive).read_bytes())
    return root


class Outer:
    """Runs shell lines in a new outer container."""

    def __init__(self, kelp, root, *options, engine=None):
        build = build_dir()
        binds = ["-v", "/usr:/usr:ro", "-v", f"{build.parent}:{build.parent}:ro"]
        self.kelp, self.inner = kelp, kelp.path if kelp.path.startswith(str(build)) else f"{build}/src/kelp"
        self.argv = [*(engine or [kelp.path]), "run", "--rm", *binds, "--network", "none", *options, "--rootfs", str(root)]

    def __call__(self, script, code=0, wrapper=()):
        setup = f"export HOME=/root; unset XDG_RUNTIME_DIR; kelp() {{ {shlex.join([*wrapper, self.inner])} \"$@\"; }}; "
        return self.kelp(*self.argv[1:], "sh", "-c", setup + script, program=self.argv[0], code=code, timeout=120)

    def level(self, **more):
        return json.loads(self("kelp doctor --format json || true", **more).out)["Level"]


RUN = "kelp load -q -i /nest/busybox.tar >/dev/null; kelp run --rm --network none busybox "
SEES = "sh -c 'echo alive; id -u; wc -l </proc/self/uid_map; read pid rest </proc/self/stat; if [ $pid = $$ ]; then echo own /proc; fi'"


def test_kelp_in_kelp_with_everything_open(kelp, outer_root):
    needs.need("tun")
    outer = Outer(kelp, outer_root, *OPEN, "--device", "/dev/net/tun", "--device", "/dev/fuse")
    assert outer.level() == "full"
    result = outer(RUN + SEES)
    assert result.lines == ["alive", "0", "2", "own /proc"] and result.err == "", result
    result = outer("kelp load -q -i /nest/busybox.tar >/dev/null; kelp run -d --name c --network none busybox sleep 100 >/dev/null; "
                   "kelp exec c echo in; kelp ps --format '{{.Names}}'; kelp rm -f -t 0 c; kelp run --rm busybox ip -o link show tap0 | wc -l")
    assert result.lines == ["in", "c", "c", "1"], result


def test_kelp_in_kelp_in_kelp(kelp, outer_root):
    """The third one's store lies where the second one's does: on the host's file system."""
    outer = Outer(kelp, outer_root, *OPEN)
    build = build_dir().parent
    result = outer(f"kelp run --rm -v /usr:/usr:ro -v {build}:{build}:ro -v /nest:/nest --network none --security-opt seccomp=unconfined "
                   "--security-opt unmask=ALL --rootfs / sh -c "
                   + shlex.quote(f"export HOME=/nest/home; mkdir -p $HOME; k={outer.inner}; $k load -q -i /nest/busybox.tar >/dev/null; "
                                 "$k run --rm --network none busybox echo third"))
    assert result.lines[-1] == "third", result


def test_a_masked_proc_is_shared_with_one_warning(kelp, outer_root):
    outer = Outer(kelp, outer_root, "--security-opt", "seccomp=unconfined")
    assert outer.level() == "shared /proc, no tun"
    result = outer(RUN + "sh -c 'echo alive; readlink /proc/self/exe; cat /proc/sys/kernel/ostype; ! cat /proc/kcore 2>/dev/null'")
    assert result.lines == ["alive", "/bin/busybox", "Linux"], result
    lines = result.err.splitlines()
    assert len(lines) == 1 and "/proc" in lines[0] and "kelp doctor" in lines[0], result


def test_under_the_default_profile_of_podman(kelp, outer_root):
    """sethostname is refused there to all but privileged containers, and /proc is masked."""
    if not PROFILE.exists():
        needs.skip("containers-common", f"no {PROFILE}")
    outer = Outer(kelp, outer_root, "--security-opt", f"seccomp={PROFILE}")
    assert outer.level() == "shared /proc, no tun"
    result = outer(RUN + SEES)
    assert result.lines == ["alive", "0", "2"], result
    assert len([line for line in result.err.splitlines() if line.startswith("kelp: warning:")]) == 2, result


def test_in_a_container_of_podman(kelp, outer_root, agent, place):
    """podman as it is, with its own profile and masks. Its crun wants a pure cgroup v2 tree."""
    needs.need("program:podman")
    home, run = place / "ph", place / "pr"
    home.mkdir()
    run.mkdir(mode=0o700)
    env = {**{name: value for name, value in kelp.env.items() if not name.startswith("XDG_")}, "HOME": str(home),
           "XDG_RUNTIME_DIR": str(run)}
    setup = "mount -t tmpfs none /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup"
    outer = Outer(kelp, outer_root, "--cgroups=disabled", engine=["podman", "--cgroup-manager", "cgroupfs"])

    def inside(script):
        argv = [*outer.argv, "sh", "-c", f"export HOME=/root; unset XDG_RUNTIME_DIR; kelp() {{ {outer.inner} \"$@\"; }}; {script}"]
        return agent("host", setup=setup, argv=argv, env=env, role="user", timeout=120)

    try:
        code, out, err = inside("true")
        if code != 0:
            needs.skip("podman-runs", err.strip().splitlines()[-1])
        code, out, err = inside("kelp doctor --format '{{.Name}}:{{.Verdict}}'; " + RUN + SEES)
        assert code == 0 and out.splitlines()[-3:] == ["alive", "0", "2"], (code, out, err)
        assert "user namespaces:ok" in out and "new /proc:warning" in out and "overlay:ok" in out, out
        assert len([line for line in err.splitlines() if line.startswith("kelp: warning:")]) == 2, err
    finally:
        agent("host", setup=setup, argv=["podman", "system", "migrate"], env=env, role="user", timeout=60)  # its pause process


def test_under_the_default_profile_of_docker_images_can_be_moved(kelp, outer_root):
    outer = Outer(kelp, outer_root, "--security-opt", "unmask=ALL")
    docker = confine.command(deny=confine.DOCKER_DENIES, deny_user_namespaces=True, keep_privileges=False)
    wrapper = [word for word in docker]
    assert outer.level(wrapper=wrapper) == "no user namespace"
    result = outer("kelp load -q -i /nest/busybox.tar >/dev/null && kelp images -q | wc -l && kelp save -q -o /nest/out.tar busybox && "
                   "kelp image inspect --format '{{.Os}}' busybox && kelp run --rm busybox true; echo $?", wrapper=wrapper)
    assert result.lines == ["1", "linux", "125"], result
    errors = result.err.splitlines()
    assert "seccomp" in errors[-2] and "--security-opt seccomp=unconfined" in errors[-1], result


def test_no_new_privs_outside(kelp, outer_root):
    """uid 0 of the outer container maps ids itself, so it needs no set-user-id program."""
    outer = Outer(kelp, outer_root, *OPEN, "--security-opt", "no-new-privileges")
    assert outer.level() == "no tun"
    result = outer(RUN + SEES)
    assert result.lines == ["alive", "0", "2", "own /proc"] and result.err == "", result


def test_no_new_privs_outside_as_an_ordinary_user(kelp, outer_root):
    (outer_root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/nest/home:/bin/sh\n")
    (outer_root / "nest/home").mkdir()
    (outer_root / "nest/home").chmod(0o777)
    (outer_root / "tmp").chmod(0o1777)
    outer = Outer(kelp, outer_root, *OPEN, "--security-opt", "no-new-privileges", "--user", "1000")
    result = outer("export HOME=/nest/home; kelp load -q -i /nest/busybox.tar >/dev/null; kelp run --rm --network none busybox "
                   "sh -c 'echo alive; wc -l </proc/self/uid_map'")
    assert result.lines == ["alive", "1"], result
    assert len([line for line in result.err.splitlines() if line.startswith("kelp: warning:")]) == 1, result
    subprocess.run(["unshare", "--user", "--map-root-user", "--map-auto", "rm", "-rf", str(outer_root / "nest/home")], check=False)


def test_an_id_range_outside_that_is_too_small(kelp, outer_root):
    """/etc/subuid of an image often promises more than the outer container has."""
    for name in ("subuid", "subgid"):
        (outer_root / "etc" / name).write_text("root:100000:65536\n")
    outer = Outer(kelp, outer_root, *OPEN)
    assert outer.level().startswith("single-id")
    result = outer(RUN + "echo alive")
    assert result.text == "alive" and "kelp doctor" in result.err, result
    assert os.getuid() != 0
