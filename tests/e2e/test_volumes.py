"""-v, --mount, --tmpfs, named volumes, and files that go in and out."""

import json
import os
import re
import subprocess

import pytest

from harness import images, needs
from harness.images import LayerTar

NONE = ("--network", "none")


def run(kelp, options, *command, **more):
    return kelp("run", "--rm", *NONE, *options, "busybox", *command, **more)


@pytest.fixture
def shared(place):
    directory = place / "shared"
    directory.mkdir()
    (directory / "file").write_text("from the host\n")
    return directory


def test_bind(kelp, shared):
    assert run(kelp, ["-v", f"{shared}:/in"], "cat", "/in/file").out == "from the host\n"
    run(kelp, ["-v", f"{shared}:/in"], "sh", "-c", "echo back > /in/new")
    assert (shared / "new").read_text() == "back\n"
    assert (shared / "new").stat().st_uid == os.getuid()


def test_bind_read_only(kelp, shared):
    result = run(kelp, ["-v", f"{shared}:/in:ro"], "touch", "/in/new", code=1)
    assert "Read-only" in result.err


def test_bind_a_relative_path(kelp, shared):
    assert run(kelp, ["-v", "./shared:/in"], "cat", "/in/file", cwd=shared.parent).out == "from the host\n"


def test_bind_a_file(kelp, shared):
    assert run(kelp, ["-v", f"{shared}/file:/etc/motd"], "cat", "/etc/motd").out == "from the host\n"


def test_mount_bind(kelp, shared):
    out = run(kelp, ["--mount", f"type=bind,src={shared},dst=/in,ro=true"], "cat", "/in/file").out
    assert out == "from the host\n"
    run(kelp, ["--mount", f"type=bind,source={shared},target=/in,readonly"], "touch", "/in/x", code=1)


def test_a_missing_source(kelp, place):
    kelp.fails("run", "--rm", *NONE, "-v", f"{place}/absent:/in", "busybox", "true", says="absent")


def test_keep_id_sees_the_callers_files_as_its_own(kelp, shared):
    needs.need("subids")
    out = run(kelp, ["--userns", "keep-id", "-v", f"{shared}:/in"], "sh", "-c", "stat -c %u /in/file; touch /in/mine")
    assert out.text == str(os.getuid())
    assert (shared / "mine").stat().st_uid == os.getuid()


def test_tmpfs(kelp):
    out = run(kelp, ["--tmpfs", "/scratch:size=1m,mode=1777"], "sh", "-c", "grep ' /scratch ' /proc/mounts").text
    assert out.startswith("tmpfs /scratch tmpfs") and "size=1024k" in out
    out = run(kelp, ["--mount", "type=tmpfs,dst=/t,tmpfs-size=2m"], "sh", "-c", "grep ' /t ' /proc/mounts").text
    assert "size=2048k" in out


def test_named_volume_keeps_its_files(kelp):
    run(kelp, ["-v", "data:/d"], "sh", "-c", "echo kept > /d/f")
    assert run(kelp, ["-v", "data:/d"], "cat", "/d/f").out == "kept\n"
    assert kelp("volume", "ls", "-q").text == "data"


def test_a_new_volume_is_filled_from_the_image(kelp):
    needs.need("subids")
    assert run(kelp, ["-v", "home:/home/app"], "stat", "-c", "%u %n", "/home/app/owned", "/home/app").lines == \
        ["1000 /home/app/owned", "1000 /home/app"]


def test_volume_commands(kelp):
    assert kelp("volume", "create", "--label", "a=b", "v1").text == "v1"
    kelp("volume", "create", "v1", code=125)
    record = json.loads(kelp("volume", "inspect", "v1").out)[0]
    assert record["Name"] == "v1" and record["Labels"] == {"a": "b"} and os.path.isdir(record["Mountpoint"])
    kelp("run", "-d", "--name", "user", *NONE, "-v", "v1:/v", "busybox", "sleep", "100")
    kelp("volume", "rm", "v1", code=2)
    kelp("rm", "-f", "-t", "0", "user")
    assert kelp("volume", "rm", "v1").text == "v1"
    kelp("volume", "inspect", "v1", code=125)
    kelp("volume", "create")
    assert len(kelp("volume", "prune", "-f").lines) == 1
    assert kelp("volume", "ls", "-q").text == ""


def test_anonymous_volumes_go_with_rm(bare_kelp, place):
    archive = images.busybox_image(config={"Volumes": {"/data": {}}}).write_archive(place / "v.tar", "localhost/vol:1")
    bare_kelp("load", "-q", "-i", archive)
    bare_kelp("run", "--rm", *NONE, "vol:1", "sh", "-c", "echo x > /data/f; mount | grep -q ' /data '")
    assert bare_kelp("volume", "ls", "-q").text == ""
    bare_kelp("run", "--name", "keeps", *NONE, "vol:1", "true")
    assert len(bare_kelp("volume", "ls", "-q").lines) == 1
    bare_kelp("rm", "-v", "keeps")
    assert bare_kelp("volume", "ls", "-q").text == ""


def test_volumes_from(kelp):
    kelp("create", "--name", "holder", *NONE, "-v", "shared:/s", "busybox", "true")
    run(kelp, ["--volumes-from", "holder"], "sh", "-c", "echo y > /s/f")
    assert run(kelp, ["-v", "shared:/x"], "cat", "/x/f").out == "y\n"


def test_propagation_option(kelp, shared):
    out = run(kelp, ["-v", f"{shared}:/in:rslave"], "sh", "-c", "grep ' /in ' /proc/self/mountinfo")
    assert "master:" in out.out or "shared:" not in out.out


def test_a_target_that_is_a_symlink_stays_inside(bare_kelp, place, shared):
    layer = images.LayerTar().symlink("escape", "/../../../../tmp")
    bare_kelp("load", "-q", "-i", images.busybox_image([layer]).write_archive(place / "e.tar", "localhost/esc:1"))
    assert bare_kelp("run", "--rm", *NONE, "-v", f"{shared}:/escape/in", "esc:1", "cat", "/tmp/in/file").out == \
        "from the host\n"


def test_a_subpath_is_looked_for_inside(kelp, shared, place):
    """What is in a volume or an image is a stranger's: a link in it leads nowhere else."""
    make = ("mkdir -p a/b; echo inside > a/b/f; ln -s /etc out; ln -s a also; ln -s /a top; ln -s /etc/passwd a/file; "
            "ln -s ../../../../../../../../../etc far")
    kelp("run", "--rm", *NONE, "-v", "data:/d", "-w", "/d", "busybox", "sh", "-c", make)
    kelp("run", "--rm", *NONE, "-v", f"{shared}:/d", "-w", "/d", "busybox", "sh", "-c", make)
    layer = LayerTar().directory("a").directory("a/b").file("a/b/f", "inside\n").symlink("out", "/etc").symlink("also", "a")
    layer.symlink("top", "/a").symlink("a/file", "/etc/passwd").symlink("far", "../../../../../../../../../etc")
    kelp("load", "-q", "-i", images.Image([layer]).write_archive(place / "i.tar", "localhost/parts:1"))
    for source in ("type=volume,src=data", f"type=bind,src={shared}", "type=image,src=localhost/parts:1"):
        mount = f"{source},dst=/x"
        for way in ("a/b", "../../a/b", "also/b", "top/b"):
            assert kelp("run", "--rm", *NONE, "--mount", f"{mount},subpath={way}", "busybox", "cat", "/x/f").text == "inside"
        assert kelp("run", "--rm", *NONE, "--mount", f"{mount},subpath=also/b/f", "busybox", "cat", "/x").text == "inside"
        for way in ("out", "a/file", "out/passwd", "far", "nothing"):
            kelp.fails("run", "--rm", *NONE, "--mount", f"{mount},subpath={way}", "busybox", "true", code=125,
                       says=f"subpath \"{way}\" of .*No such file")
    for mount in (f"type=volume,src=data,dst=/x,volume-subpath=a", f"type=bind,src={shared},dst=/x,subpath=a"):
        kelp("run", "--rm", *NONE, "--mount", mount, "busybox", "touch", "/x/made")
        assert "Read-only" in kelp("run", "--rm", *NONE, "--mount", mount + ",ro", "busybox", "touch", "/x/not", code=1).err
    assert (shared / "a/made").exists()
    assert kelp("run", "--rm", *NONE, "-v", "data:/d", "busybox", "ls", "/d/a").lines == ["b", "file", "made"]


def test_a_subpath_may_have_become_another_kind_of_file(kelp):
    def changed(how):
        kelp("run", "--rm", *NONE, "-v", "v:/data", "-w", "/data", "busybox", "sh", "-ec", how)
    changed("mkdir part; echo 1 > part/f")
    kelp("create", "--name", "c", *NONE, "--mount", "type=volume,source=v,target=/srv/x,subpath=part", "busybox", "sh", "-c",
         "cat /srv/x /srv/x/f")
    assert kelp("start", "-a", "c", code=None).out == "1\n"
    changed("mv part/f f; rmdir part; mv f part")
    assert kelp("start", "-a", "c", code=None).code == 125  # the first start has made a directory in the container
    changed("mv part f; mkdir part; mv f part")
    assert kelp("start", "-a", "c", code=None).out == "1\n"


@pytest.mark.parametrize("network", [NONE, ()], ids=["none", "default"])
def test_a_host_file_system_mounted_before_can_be_unmounted(kelp, agent, place, network):
    if not network:
        needs.need("tun")
    directory = place / "mounted"
    directory.mkdir()
    agent("mount", path=str(directory))
    try:
        kelp("run", "-d", "--name", "c", *network, "busybox", "sleep", "100")
    finally:
        agent("unmount", path=str(directory))
    assert kelp("exec", "c", "echo", "on").text == "on"


UNMOUNTED_MEANWHILE = """
holders() { for p in /proc/[0-9]*; do grep -s " $DISK " $p/mountinfo >/dev/null && cat $p/comm; done | sort -u; true; }
$KELP run -d --name c $NETWORK busybox sleep 100 >/dev/null
holders | grep kelp-monitor
touch $PLACE/go
until [ -e $PLACE/gone ]; do sleep 0.05; done
holders
"""


@pytest.mark.parametrize("network", [NONE, ()], ids=["none", "default"])
def test_what_the_host_unmounts_is_kept_by_nobody(kelp, agent, place, network):
    """Where the host's mounts are shared, as systemd makes them, the disk is free: the monitor's mount namespace and
    slirp4netns' follow."""
    if not network:
        needs.need("tun")
    disk = place / "shared/disk"
    setup = f"""
        mkdir {place}/shared; mount -t tmpfs none {place}/shared; mount --make-shared {place}/shared
        mkdir {disk}; mount -t tmpfs none {disk}
        (until [ -e {place}/go ]; do sleep 0.05; done; umount {disk}; touch {place}/gone) &"""
    variables = {"KELP": kelp.path, "NETWORK": " ".join(network), "PLACE": str(place), "DISK": str(disk)}
    try:
        code, out, err = agent("host", setup=setup, argv=["sh", "-ec", UNMOUNTED_MEANWHILE], env={**kelp.env, **variables},
                               role="user", timeout=60)
    finally:
        (place / "go").touch()
    assert (code, out, err) == (0, "kelp-monitor\n", "")
    assert kelp("exec", "c", "echo", "on").text == "on"


# --- cp --------------------------------------------------------------------------------------------------------------

def test_cp_in_and_out(kelp, shared):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sleep", "100")
    kelp("cp", shared / "file", "c:/tmp/copied")
    assert kelp("exec", "c", "cat", "/tmp/copied").out == "from the host\n"
    kelp("exec", "c", "sh", "-c", "mkdir -p /out/sub; echo deep > /out/sub/f; ln -s /etc/passwd /out/link")
    kelp("cp", "c:/out", shared)
    assert (shared / "out/sub/f").read_text() == "deep\n"
    assert os.readlink(shared / "out/link") == "/etc/passwd"


def test_cp_to_a_stopped_container(kelp, shared):
    kelp("create", "--name", "c", *NONE, "busybox", "cat", "/tmp/copied")
    kelp("cp", shared / "file", "c:/tmp/copied")
    assert kelp("start", "-a", "c").out == "from the host\n"
    kelp("cp", "c:/etc/passwd", shared / "passwd")
    assert (shared / "passwd").read_text().startswith("root:")


def test_cp_does_not_follow_links_out_of_the_container(kelp, shared):
    kelp("run", "-d", "--name", "c", *NONE, "busybox", "sh", "-c", "ln -s /etc/hostname /trap; sleep 100")
    until_there(kelp)
    kelp("cp", "c:/trap", shared / "got", code=None)
    if (shared / "got").is_file() and not (shared / "got").is_symlink():
        assert (shared / "got").read_text() != open("/etc/hostname").read()


def until_there(kelp):
    from harness.waiting import until
    until("the link", lambda: kelp("exec", "c", "readlink", "/trap", code=None).text)


def test_cp_and_start_at_the_same_time(kelp, shared):
    kelp("create", "--name", "c", *NONE, "busybox", "sh", "-c", "touch /ran; cat /tmp/file 2>/dev/null; exit 0")
    for _ in range(10):
        copy = kelp.start("cp", shared / "file", "c:/tmp/file")
        start = kelp.start("start", "-a", "c")
        assert start.wait(timeout=60) == 0, start.stderr.read()
        assert copy.wait(timeout=60) == 0, copy.stderr.read()
    assert kelp("start", "-a", "c").out == "from the host\n"


def test_suffixes_for_other_hosts(kelp, place):
    """:z and :Z relabel where SELinux is on; ids of a mount are only root's to map, which is said at once."""
    for suffix in ("z", "Z", "ro,z"):
        assert kelp("run", "--rm", "--network", "none", "-v", f"{place}:/there:{suffix}", "busybox", "ls", "/there").lines == os.listdir(place)
    kelp.fails("create", "--network", "none", "-v", f"{place}:/there:idmap", "busybox", "true", says="idmap", hint="U gives")
    kelp("run", "--rm", "--network", "none", "--security-opt", "label=disable", "busybox", "true")
    kelp("run", "--rm", "--network", "none", "--security-opt", "label=type:spc_t", "busybox", "true")
    kelp.fails("create", "--network", "none", "--security-opt", "label=colour:red", "busybox", "true", says="label=")


# What tells kelp that SELinux is on.
SELINUX = "mount -t tmpfs none /sys/fs; mkdir -p /sys/fs/selinux /sys/fs/cgroup; echo 1 >/sys/fs/selinux/enforce"


@pytest.mark.parametrize("suffix", ["z", "Z"])
def test_where_selinux_is_on_a_volume_gets_its_label(kelp, agent, shared, suffix):
    from test_hosts import Host
    host = Host(kelp, agent, SELINUX)
    volume = ("run", "--rm", "--network", "none", "-v")
    assert host(*volume, f"{shared}:/there", "busybox", "ls", "/there").text
    assert "security.selinux" not in os.listxattr(shared)
    host(*volume, f"{shared}:/there:{suffix}", "busybox", "true")
    assert re.fullmatch(r"system_u:object_r:container_file_t:s0" + (r":c\d+,c\d+" if suffix == "Z" else ""), label_of(shared))
    assert label_of(shared / "file") == label_of(shared)


def label_of(path):
    return os.getxattr(path, "security.selinux").decode().rstrip("\0")


def test_where_selinux_is_on_each_container_has_categories(kelp, agent, shared):
    """There is no SELinux here: files take any label, processes none, so the label of a process is seen in its refusal."""
    from test_hosts import Host
    host = Host(kelp, agent, SELINUX)
    new = ("create", "--network", "none", "-v", f"{shared}:/there:Z")
    host(*new, "--name", "a", "busybox", "true")
    host(*new, "--name", "b", "busybox", "true")
    seen = []
    for name in ("a", "b", "a"):
        host("start", "-a", name)
        seen.append(label_of(shared))
    assert seen[0] == seen[2] != seen[1]
    assert host("inspect", "--format", "{{.ProcessLabel}}{{.MountLabel}}", "a").text == ""  # none asked for

    host(*new, "--name", "c", "--security-opt", "label=type:my_t", "busybox", "true")
    host("start", "c", code=None)
    level = label_of(shared).removeprefix("system_u:object_r:container_file_t:")
    assert re.fullmatch(r"s0:c\d+,c\d+", level)
    assert host("inspect", "--format", "{{.ProcessLabel}} {{.MountLabel}}", "c").text == (
        f"system_u:system_r:my_t:{level} system_u:object_r:container_file_t:{level}")
    host(*new, "--name", "d", "--security-opt", "label=level:s0:c1,c2", "busybox", "true")
    host("start", "d", code=None)
    assert host("inspect", "--format", "{{.ProcessLabel}} {{.MountLabel}}", "d").text == (
        "system_u:system_r:container_t:s0:c1,c2 system_u:object_r:container_file_t:s0:c1,c2")
    assert label_of(shared) == "system_u:object_r:container_file_t:s0:c1,c2"
    assert host("run", "--rm", "--network", "none", "--security-opt", "label=disable", "busybox", "echo", "as before").text == "as before"


IDMAP_OF_A_MOUNT = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
tree = libc.syscall(428, -100, sys.argv[1].encode(), 1)  # open_tree(…, OPEN_TREE_CLONE)
assert tree >= 0, os.strerror(ctypes.get_errno())
ready, go = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    assert libc.unshare(0x10000000) == 0  # CLONE_NEWUSER
    os.write(ready[1], b"r")
    os.read(go[0], 1)
    os._exit(0)
os.read(ready[0], 1)
for name in ("uid_map", "gid_map"):
    open(f"/proc/{child}/{name}", "w").write("0 0 1")
space = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
class Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "userns")]
wanted = Attributes(0x100000, 0, 0, space)  # MOUNT_ATTR_IDMAP
done = libc.syscall(442, tree, b"", 0x1000, ctypes.byref(wanted), ctypes.sizeof(wanted))
print("mapped" if done == 0 else os.strerror(ctypes.get_errno()))
os.write(go[1], b"g")
os.waitpid(child, 0)
"""


def test_the_kernel_maps_ids_of_a_mount_for_its_owner_only(kelp, place):
    """Why :idmap is refused: even root of the user namespace may not do it to a file system of the host, and no file
    system that a container's volume can lie on is mounted within the namespace."""
    (place / "idmap.py").write_text(IDMAP_OF_A_MOUNT)
    answer = kelp("unshare", "python3", place / "idmap.py", place).text
    if answer == "Function not implemented":
        needs.skip("mount_setattr", "the kernel has no idmapped mounts")
    assert answer == "Operation not permitted"
    kelp.fails("create", "--network", "none", "--mount", f"type=bind,src={place},dst=/there,idmap", "busybox", "true", says="idmap")
